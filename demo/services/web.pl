# The access log of a small shop, as a web server writes it: a few requests a second, errors on stderr.
$| = 1;
my @paths = ('/', '/cart', '/checkout', '/product/1042', '/product/77?ref=mail', '/img/logo.svg', '/api/stock');
my @agents = ('Mozilla/5.0 (X11; Linux x86_64) Firefox/141.0', 'curl/8.14.1', 'Mozilla/5.0 (iPhone) Safari/605.1');
my @months = qw(Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec);
while (1) {
  my ($s, $m, $h, $d, $mon, $y) = gmtime;
  my $status = rand() < 0.05 ? 502 : rand() < 0.1 ? 404 : 200;
  my $path = $paths[rand @paths];
  printf "203.0.113.%d - - [%02d/%s/%d:%02d:%02d:%02d +0000] \"GET %s HTTP/1.1\" %d %d \"-\" \"%s\"\n",
    rand 254, $d, $months[$mon], $y + 1900, $h, $m, $s, $path, $status, 200 + rand 40_000, $agents[rand @agents];
  print STDERR "[error] upstream timed out while reading response header, request: \"GET $path\"\n" if $status == 502;
  select undef, undef, undef, 0.1 + rand 0.3;
}
