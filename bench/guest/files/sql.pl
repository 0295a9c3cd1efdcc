# SQL for the sqlite row: that many inserts in one transaction, an index, selects. usage: sql.pl ROWS
use strict;
use warnings;

my ($rows, $seed) = ($ARGV[0], 7);
print "create table t(id integer primary key, k integer, v text);\nbegin;\n";
for my $i (1 .. $rows) {
    $seed = ($seed * 1103515245 + 12345) % 2147483648;
    my $k = $seed % 977;
    print "insert into t(k, v) values($k, 'value $seed of row $i');\n";
}
print "commit;\ncreate index tk on t(k);\n";
print "select count(*), sum(length(v)), max(v) from t where k between $_ and $_ + 40;\n" for map { $_ * 50 } 0 .. 19;
print "select k, count(*) c from t group by k order by c desc, k limit 5;\n";
