package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"layersim": main})
}

// TestScripts runs the files of testdata/script, each a session in a shell.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true})
}

func TestHistoryFile(t *testing.T) {
	for _, test := range [][3]string{
		{"out/history.jsonl", "happy-path", "out/history-happy-path.jsonl"},
		{"history", "secret-name/push-idle", "history-secret-name-push-idle"},
	} {
		if got := historyFile(test[0], test[1]); got != test[2] {
			t.Errorf("historyFile(%q, %q) = %q, want %q", test[0], test[1], got, test[2])
		}
	}
}
