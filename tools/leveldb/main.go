// goleveldb opens a database as seid does and prints or changes it.
//
//	goleveldb print DIR             one line of `hex(key) hex(value)` for each entry, in order
//	goleveldb apply DIR < CHANGES   each line: `put hex(key) hex(value)`, `delete hex(key)`, `compact`, or `die`, which ends
//	                                the process without closing the database
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

func main() {
	if len(os.Args) != 3 || (os.Args[1] != "print" && os.Args[1] != "apply") {
		fail("usage: goleveldb print|apply DIR")
	}
	db, err := leveldb.OpenFile(os.Args[2], &opt.Options{
		Filter:                 filter.NewBloomFilter(10),
		OpenFilesCacheCapacity: 64,
		Strict:                 opt.StrictAll,
	})
	check(err)
	if os.Args[1] == "print" {
		check(printAll(db))
	} else {
		check(apply(db))
	}
	check(db.Close())
}

func printAll(db *leveldb.DB) error {
	entries := db.NewIterator(nil, nil)
	defer entries.Release()
	for entries.Next() {
		// what iteration finds, a lookup finds too
		value, err := db.Get(entries.Key(), nil)
		if err != nil {
			return fmt.Errorf("get %x: %w", entries.Key(), err)
		}
		fmt.Printf("%x %x\n", entries.Key(), value)
	}
	return entries.Error()
}

func apply(db *leveldb.DB) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		sync := &opt.WriteOptions{Sync: true}
		var err error
		switch {
		case len(words) == 3 && words[0] == "put":
			err = db.Put(decode(words[1]), decode(words[2]), sync)
		case len(words) == 2 && words[0] == "delete":
			err = db.Delete(decode(words[1]), sync)
		case len(words) == 1 && words[0] == "compact":
			err = db.CompactRange(util.Range{})
		case len(words) == 1 && words[0] == "die":
			os.Exit(0)
		default:
			err = fmt.Errorf("not a change: %q", lines.Text())
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

func decode(text string) []byte {
	bytes, err := hex.DecodeString(text)
	check(err)
	return bytes
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(text string) {
	fmt.Fprintln(os.Stderr, "goleveldb:", text)
	os.Exit(1)
}
