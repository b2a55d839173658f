//go:build !live

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// liveProgram is the same program with the real clusters in it. They need several times as many packages as the simulated one,
// and so does compiling them; so those who don't use them don't pay for them.
const liveProgram = "layersim-live"

// live hands the whole command line over to the program that has the real clusters.
func (f *runFlags) live(_ context.Context, name string) (backend, error) {
	file, err := findLive()
	if err != nil {
		return nil, err
	}
	if err := syscall.Exec(file, append([]string{file}, os.Args[1:]...), os.Environ()); err != nil {
		return nil, &brokenError{fmt.Errorf("run %s for --cluster %s: %w", file, name, err)}
	}
	return nil, nil
}

// liveCommands are those that only the program with the real clusters has.
func liveCommands() []*cobra.Command {
	var commands []*cobra.Command
	for _, c := range []struct{ use, short string }{{"up", upShort}, {"down", downShort}, {debugUse, debugShort}} {
		commands = append(commands, &cobra.Command{
			Use: c.use, Short: c.short, DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := (&runFlags{}).live(cmd.Context(), "kind")
				return err
			},
		})
	}
	return commands
}

// findLive looks beside this program, then in PATH.
func findLive() (string, error) {
	if self, err := os.Executable(); err == nil {
		if file := filepath.Join(filepath.Dir(self), liveProgram); isFile(file) {
			return file, nil
		}
	}
	file, err := exec.LookPath(liveProgram)
	if errors.Is(err, exec.ErrNotFound) {
		return "", &brokenError{fmt.Errorf("real clusters are run by %s, which is neither beside this program nor in PATH: "+
			"`make live` builds it (go build -tags live -o bin/%[1]s ./cmd/layersim)", liveProgram)}
	}
	return file, err
}
