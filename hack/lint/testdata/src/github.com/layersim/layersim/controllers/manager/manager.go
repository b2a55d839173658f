package manager

import "time"

func free() { go time.Sleep(1) }
