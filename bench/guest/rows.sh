#!/bin/sh
# Rows that are whole programs of Debian's user land. The same file runs in the chroot and in every machine.
#
# usage: rows.sh setup|run|check ROW SIZE
# Only run is timed; its output is in $out. check prints what the columns compare. SIZE is the amount of work: 8 is the
# usual one, 1 warms up a hot row before it is timed. A row may leave "nanoseconds operations" in $time if it knows better.
#
# The rows (read by bench/lib/debian.py): name, group, what. Those that are cold run first in a fresh machine, once.
#row start cold first starts of openssl, python, perl, sqlite, xz
#row pipeline cold ls, sort, uniq: first pipelines of a machine
#row gcc cold gcc -O2 -c of one file, the first in a machine
#row nbody program python: n-body
#row pydict program python: dictionaries and strings
#row perlhash program perl: hashes and sort
#row sqlite program sqlite: inserts, an index, selects
#row xz program xz -6
#row zstd program zstd -7
#row sha256 program openssl sha256
#row aesctr program openssl aes-128-ctr
#row rsa2048 program openssl RSA-2048 sign
#row shloop program dash: arithmetic loop
#row pipes program ls, sort, uniq pipelines
set -eu

here=/tmp/bench
run=/tmp/run
out=$run/out
time=$run/time
step=$1
row=$2
size=$3
mkdir -p $run
cd $run

sum() { sha256sum "$@" | cut -c 1-64; }
data() { [ -s $run/data$1 ] || $here/vbench data $(($1 * 1024)) >$run/data$1; }
edges() { head -c 65536 "$1" | sum; tail -c 65536 "$1" | sum; wc -c <"$1"; }
pipelines()
{
    i=0
    while [ $i -lt "$1" ]; do
        ls /usr/bin | sort -r | uniq -c | tail -n 2
        i=$((i + 1))
    done
}

setup_gcc()
{
    for f in sieve sort hash chase crc bytecode fib float memory; do
        cat $here/files/$f.c
    done >all.c
    cp $here/files/bench.h .
}
setup_sqlite() { perl $here/files/sql.pl $((size * 1800)) >in.sql; }
setup_xz() { data $((size * 64)); }
setup_zstd() { data $((size * 384)); }
setup_sha256() { data $((size * 8192)); }
setup_aesctr() { data $((size * 4096)); }
setup_rsa2048() { [ -s key ] || cp $here/files/key.pem key; }

run_start()
{
    openssl version
    python3 -S -c 'print(6 * 7)'
    perl -e 'print 6 * 7, "\n"'
    sqlite3 :memory: 'select 6 * 7'
    echo 42 | xz | xz -dc
}
run_pipeline() { pipelines 2; }
run_pipes() { pipelines $((size * 2)); }
run_gcc() { gcc -O2 -c all.c -o all.o; }
run_nbody() { python3 -S $here/files/nbody.py $((size * 900)); }
run_pydict() { python3 -S $here/files/pydict.py $((size * 9000)); }
run_perlhash() { perl $here/files/hash.pl $((size * 8000)); }
run_sqlite() { sqlite3 :memory: <in.sql; }
run_xz() { xz -6 -T1 -c data$((size * 64)); }
run_zstd() { zstd -q -7 --single-thread -c data$((size * 384)); }
run_sha256() { openssl dgst -sha256 -r <data$((size * 8192)); }
run_aesctr()
{
    openssl enc -aes-128-ctr -K 000102030405060708090a0b0c0d0e0f -iv 00000000000000000000000000000001 \
        -in data$((size * 4096)) -out aes
}
run_rsa2048() { openssl speed -mr -elapsed -seconds 1 rsa2048 2>speed.log; }
run_shloop()
{
    i=0 sum=0
    while [ $i -lt $((size * 8000)) ]; do
        sum=$(((sum * 31 + i) % 1000003))
        i=$((i + 1))
    done
    echo $sum
}

check_gcc() { sum all.o; }
check_aesctr() { edges aes; }
# What "speed" counts is kept for the time; what it signs is random, so a signature of our own is compared.
check_rsa2048()
{
    line=$(cat speed.log out | tr '\r' '\n' | sed -n 's/^+R1:\([0-9]*\):2048:\([0-9]*\)\.\([0-9][0-9]\).*/\1 \2\3/p')
    set -- $line
    echo "$((${2#0} * 10000000)) $1" >$time
    openssl dgst -sha256 -sign key -hex $here/files/hash.pl
}

case $step in
setup) rm -f $time $out; if command -v setup_$row >/dev/null; then setup_$row; fi ;;
run) run_$row >$out ;;
check) if command -v check_$row >/dev/null; then check_$row; else sum $out; fi ;;
esac
