// Reads and writes databases with seid's own LevelDB library, for tests of what travels in snapshot archives. See ../seidev/build.py.
module seiops/tools/leveldb

go 1.25.0

require github.com/syndtr/goleveldb v1.0.1-0.20220721030215-126854af5e6d

require github.com/golang/snappy v0.0.4 // indirect
