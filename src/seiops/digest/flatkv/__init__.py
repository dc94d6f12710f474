"""FlatKV on disk: four Pebble databases of flat rows and the log of blocks behind them (docs/contracts/digest.md 4)."""
