# A worker that bills orders: a JSON line for each, up to 20 KB, and now and then a stack trace on stderr.
$| = 1;
my $order = 1000;
while (1) {
  $order++;
  my $items = join ',', map { sprintf '{"sku":"A-%05d","qty":%d,"price":"%.2f"}', rand 99_999, 1 + rand 9, rand 200 } 0 .. rand 420;
  print qq({"level":"info","msg":"order billed","order":$order,"items":[$items]}\n);
  if ($order % 7 == 0) {
    print STDERR "java.lang.IllegalStateException: payment of order $order was refused\n",
      map { "\tat com.example.billing.$_\n" } 'Gateway.charge(Gateway.java:118)', 'Invoice.settle(Invoice.java:64)',
      'Worker.run(Worker.java:41)';
    print STDERR "Caused by: java.net.SocketTimeoutException: Read timed out\n\t... 3 more\n";
  }
  select undef, undef, undef, 0.7;
}
