# Hashes, a regular expression and a sort. usage: hash.pl COUNT
use strict;
use warnings;

my ($count, $seed, %seen) = ($ARGV[0], 1);
for my $i (1 .. $count) {
    $seed = ($seed * 1103515245 + 12345) % 2147483648;
    my $word = sprintf("w%x", $seed % 4099);
    $seen{$word} += $i;
    $seen{lc $1}++ if $word =~ /^(w[a-f]+)$/;
}
my $sum = 0;
for my $word (sort { $seen{$a} <=> $seen{$b} || $a cmp $b } keys %seen) {
    $sum = ($sum * 31 + $seen{$word} + length $word) % 1000003;
}
print scalar(keys %seen), " $sum\n";
