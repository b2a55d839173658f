// Runc stands in for runc where the machine lacks the capability CAP_SYS_RESOURCE, as some sandboxes do. There runc fails
// with "unable to apply caps" for each privileged container, because these ask for all capabilities, and for raised limits.
//
// It takes runc's arguments, removes that capability and the limits from what it is told to run, and becomes the runc that
// it finds in PATH: for create and run in config.json of the bundle, for exec in the file of --process.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "layersim runc:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch command := subcommand(args); command {
	case "create", "run", "restore":
		bundle := option(args, "--bundle", "-b")
		if bundle == "" {
			bundle = "."
		}
		if err := restrict(filepath.Join(bundle, "config.json"), "process"); err != nil {
			return err
		}
	case "exec":
		if file := option(args, "--process", "-p"); file != "" {
			if err := restrict(file, ""); err != nil {
				return err
			}
		}
	}
	real, err := exec.LookPath("runc")
	if errors.Is(err, exec.ErrNotFound) {
		real, err = "/usr/sbin/runc", nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", real, syscall.Exec(real, append([]string{real}, args...), os.Environ()))
}

// subcommand returns the first argument that is neither an option nor the value of one. Before the subcommand, these
// options of runc have values; all others are switches.
func subcommand(args []string) string {
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case slices.Contains([]string{"--root", "--log", "--log-format", "--criu", "--rootless"}, a):
			i++
		case !strings.HasPrefix(a, "-"):
			return a
		}
	}
	return ""
}

// option returns the value of an option, given as two arguments or as one.
func option(args []string, names ...string) string {
	for i, a := range args {
		name, value, joined := strings.Cut(a, "=")
		switch {
		case !slices.Contains(names, name):
		case joined:
			return value
		case i+1 < len(args):
			return args[i+1]
		}
	}
	return ""
}

// restrict rewrites a file of runc. The process is the value of the key, or, without one, the whole file.
func restrict(path, key string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // runc says it better
	}
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // or large limits would lose digits
	var document map[string]any
	if err := decoder.Decode(&document); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	process := document
	if key != "" {
		process, _ = document[key].(map[string]any)
	}
	delete(process, "rlimits")
	capabilities, _ := process["capabilities"].(map[string]any)
	for set, value := range capabilities {
		if names, ok := value.([]any); ok {
			capabilities[set] = slices.DeleteFunc(names, func(name any) bool { return name == "CAP_SYS_RESOURCE" })
		}
	}
	if data, err = json.Marshal(document); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, info.Mode().Perm())
}
