package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/report/artifacts"
	"github.com/layersim/layersim/sim/scenario"
)

// writable makes the folder for artifacts, and finds out before anything runs whether something can be written there.
func (f *runFlags) writable() error {
	if f.artifacts == "" {
		return nil
	}
	err := os.MkdirAll(f.artifacts, 0o755)
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(f.artifacts, "_probe-"); err == nil {
			err = errors.Join(probe.Close(), os.Remove(probe.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("--artifacts %q: %w", f.artifacts, err)
	}
	return nil
}

// begin begins the artifacts of a scenario, nil where nobody wants them. With several clusters each has a folder in the
// scenario's, which the first one finds empty.
func (f *runFlags) begin(b backend, slot int, s *scenario.Scenario, several, first bool) (*artifacts.Folder, error) {
	if f.artifacts == "" {
		return nil, nil
	}
	folder := filepath.Join(f.artifacts, filepath.FromSlash(s.Name))
	if several && first {
		if err := os.RemoveAll(folder); err != nil {
			return nil, fmt.Errorf("begin artifacts: %w", err)
		}
	}
	if several {
		folder = filepath.Join(folder, b.name())
	}
	logs := logsOf(f.artifacts, b.name(), slot)
	// What programs of earlier runs said would be mistaken for what those of this run say, who have the same names.
	entries, err := os.ReadDir(logs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("begin artifacts: %w", err)
	}
	lasting := b.lasting(slot)
	for _, e := range entries {
		if !slices.Contains(lasting, e.Name()) {
			if err := os.RemoveAll(filepath.Join(logs, e.Name())); err != nil {
				return nil, fmt.Errorf("begin artifacts: %w", err)
			}
		}
	}
	return artifacts.New(folder, logs)
}

// leave writes the artifacts of a scenario.
func (f *runFlags) leave(left *artifacts.Folder, b backend, slot int, result *report.Result) error {
	// A log that an error names is there no longer than the run.
	if logs := logsOf(f.artifacts, b.name(), slot); result.Err != nil && strings.Contains(result.Err.Error(), logs) {
		result.Err = errors.New(strings.ReplaceAll(result.Err.Error(), logs, filepath.Join(left.Path(), artifacts.Logs)))
	}
	return errors.Join(b.collect(slot), left.Write(b.name(), f.seed, result))
}

// logsOf is the folder into which programs of a slot write what they say, from run to run. No scenario has such a name.
func logsOf(root, cluster string, slot int) string {
	return filepath.Join(root, fmt.Sprintf("_logs-%s-%d", cluster, slot+1))
}

// removeLogs removes them, when the programs have ended: artifacts have all of it.
func (f *runFlags) removeLogs(b backend, slots int) error {
	if f.artifacts == "" {
		return nil
	}
	var errs []error
	for slot := range slots {
		errs = append(errs, os.RemoveAll(logsOf(f.artifacts, b.name(), slot)))
	}
	return errors.Join(errs...)
}
