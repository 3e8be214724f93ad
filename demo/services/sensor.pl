# A noisy one: 300 readings a second, for as long as it runs.
$| = 1;
my $n = 0;
while (1) {
  print map { $n++; sprintf "reading=%d probe=%02d temperature=%.2f humidity=%.1f\n", $n, $n % 16, 18 + rand 6, 40 + rand 20 } 1 .. 60;
  select undef, undef, undef, 0.2;
}
