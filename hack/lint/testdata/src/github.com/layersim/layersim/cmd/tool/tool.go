package tool

import "time"

func free() { go time.Sleep(1) }
