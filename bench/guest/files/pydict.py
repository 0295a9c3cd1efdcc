"""Dictionaries, strings, sorting. usage: pydict.py COUNT"""
import sys


def main():
    count, seed, table = int(sys.argv[1]), 1, {}
    for i in range(count):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        key = f"k{seed % 5003:x}"
        table[key] = table.get(key, 0) + i
    words = " ".join(k.upper() for k in sorted(table)).split()
    text = ",".join(w.replace("K", "q") + str(table[w.lower()]) for w in words)
    print(len(text), sum(map(ord, text)), text[:60])


main()
