package store

import (
	"testing"
	"time"
)

func TestFree(t *testing.T) {
	go t.Log(time.Now())
}
