# fish reads this at the first TAB after the name. The program itself knows its commands: nothing here goes out of date.
hybridgrey completion fish 2>/dev/null | source
