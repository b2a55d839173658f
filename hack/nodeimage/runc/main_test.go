package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	args := strings.Fields("--root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p id")
	if got := subcommand(args); got != "create" {
		t.Errorf("subcommand: %q", got)
	}
	if got := option(args, "--bundle", "-b"); got != "/b" {
		t.Errorf("bundle: %q", got)
	}
	args = strings.Fields("--root=/r exec --process=/x id")
	if got := subcommand(args) + option(args, "--process", "-p"); got != "exec/x" {
		t.Errorf("subcommand and process: %q", got)
	}
	if got := subcommand(nil) + option(nil, "-b"); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}

func TestRestrict(t *testing.T) {
	const process = `{"args":["a"],"capabilities":{"bounding":["CAP_KILL","CAP_SYS_RESOURCE"],"effective":["CAP_SYS_RESOURCE"]},` +
		`"rlimits":[{"hard":18446744073709551615}],"user":{"uid":18446744073709551615}}`
	const want = `{"args":["a"],"capabilities":{"bounding":["CAP_KILL"],"effective":[]},"user":{"uid":18446744073709551615}}`
	for _, test := range []struct{ key, content, want string }{
		{"process", `{"process":` + process + `,"root":{}}`, `{"process":` + want + `,"root":{}}`},
		{"", process, want},
		{"process", `{"root":{}}`, `{"root":{}}`},
	} {
		file := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(file, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := restrict(file, test.key); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != test.want {
			t.Errorf("%s\nbecame %s, %v\nwant   %s", test.content, got, err, test.want)
		}
	}
	if err := restrict(filepath.Join(t.TempDir(), "none"), ""); err != nil {
		t.Errorf("a file that isn't there: %v", err)
	}
}
