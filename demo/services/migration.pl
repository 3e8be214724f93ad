# One that dies: it reports some steps, then fails with exit code 1.
$| = 1;
print "migration: applying 00$_\n" for 1 .. 5;
select undef, undef, undef, 0.5;
print STDERR "migration: 006 failed: column \"total\" of relation \"orders\" already exists\n";
print STDERR 'migration: giving up, the database is as before';
exit 1;
