//go:build !live

package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestHandover runs the program without real clusters where the one that has them is there, and where it isn't.
func TestHandover(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/handover", RequireExplicitExec: true})
}
