# bash reads this at the first TAB after the name. The program itself knows its commands: nothing here goes out of date.
eval "$(hybridgrey completion bash 2>/dev/null)"
