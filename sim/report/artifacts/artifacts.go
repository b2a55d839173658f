// Package artifacts writes what a scenario leaves behind into a folder of its own:
//
//	history.jsonl   the whole history
//	timeline.txt    the failures and the whole timeline
//	registry.txt    the requests that the registry answered
//	logs/           what the cluster's programs said during the scenario, a file each, and what was collected afterwards
//
// [New] empties the folder when the scenario begins, and [Folder.Write] fills it when it is over. Without a history, which a
// scenario hasn't that could not be run, there are just the timeline, with the reason, and the logs.
//
// Programs go on writing their logs in another folder, from scenario to scenario: of a file that was there when the scenario
// began, its artifacts hold what came after that, or all of a shorter one, which was begun anew. A file that is begun anew and
// has grown longer can't be told from one that was gone on with, so whoever runs such programs removes their logs between
// scenarios. A folder among the logs is what was collected when the scenario was over, such as the logs of a cluster's node: its
// artifacts hold all of it, and [New] removes it.
//
// Histories are redacted before they get here. Logs are copied as they are, with the permissions that they have.
package artifacts

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/report"
)

// Logs is the name of the folder for logs.
const Logs = "logs"

// Folder is that of a scenario.
type Folder struct {
	path string
	// logs is the folder in which programs go on writing, and begin how long each file was when the scenario began.
	logs  string
	begin map[string]int64
}

// New begins the artifacts of a scenario: it removes a folder with all that is in it, and what was collected for an earlier
// scenario, and looks how long the programs' logs are by now. Their folder need not be there, and may be "" where there are no
// programs.
func New(path, logs string) (*Folder, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("begin artifacts: %w", err)
	}
	f := &Folder{path: path, logs: logs, begin: map[string]int64{}}
	err = errors.Join(os.RemoveAll(path), f.removeCollected(), f.each(func(name string, log fs.FileInfo) error {
		f.begin[name] = log.Size()
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("begin artifacts: %w", err)
	}
	return f, nil
}

// Path is the folder's absolute path.
func (f *Folder) Path() string { return f.path }

// removeCollected removes the folders among the logs.
func (f *Folder) removeCollected() error {
	if f.logs == "" {
		return nil
	}
	entries, err := os.ReadDir(f.logs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, os.RemoveAll(filepath.Join(f.logs, e.Name())))
		}
	}
	return err
}

// each visits the logs, with their names below the folder of all.
func (f *Folder) each(visit func(name string, log fs.FileInfo) error) error {
	if f.logs == "" {
		return nil
	}
	return filepath.WalkDir(f.logs, func(path string, e fs.DirEntry, err error) error {
		if path == f.logs && errors.Is(err, fs.ErrNotExist) {
			return fs.SkipAll
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(f.logs, path)
		if err != nil {
			return err
		}
		return visit(name, info)
	})
}

// Write writes the artifacts of a scenario that is over. Cluster and seed are those of its run. What can be written is
// written, whatever can't.
func (f *Folder) Write(cluster string, seed uint64, r *report.Result) error {
	if err := os.MkdirAll(f.path, 0o755); err != nil {
		return fmt.Errorf("write artifacts: %w", err) // once, not for each of them
	}
	suite := &report.Suite{Cluster: cluster, Seed: seed, Scenarios: []*report.Result{r}}
	errs := []error{f.file("timeline.txt", 0o644, func(w io.Writer) error {
		return report.Text(w, suite, report.TextOptions{Verbose: true})
	})}
	if r.History != nil {
		errs = append(errs,
			f.file("history.jsonl", 0o644, func(w io.Writer) error { return history.Write(w, r.History) }),
			f.file("registry.txt", 0o644, func(w io.Writer) error { return journal(w, r.History) }))
	}
	errs = append(errs, f.each(func(name string, log fs.FileInfo) error {
		from := f.begin[name]
		if log.Size() < from {
			from = 0 // the program was started again
		}
		if log.Size() == from {
			return nil
		}
		return f.file(filepath.Join(Logs, name), log.Mode().Perm(), func(w io.Writer) error {
			file, err := os.Open(filepath.Join(f.logs, name))
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = io.Copy(w, io.NewSectionReader(file, from, log.Size()-from))
			return err
		})
	}))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write artifacts: %w", err)
	}
	return nil
}

// file makes a file in the folder.
func (f *Folder) file(name string, mode fs.FileMode, write func(io.Writer) error) error {
	path := filepath.Join(f.path, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

// journal writes the requests that the registry answered. Times count from the first step, as those of timelines do.
func journal(w io.Writer, h *history.History) error {
	var begin time.Duration
	for _, r := range h.Records {
		if r.Step != nil {
			begin = r.Time
			break
		}
	}
	out := bufio.NewWriter(w)
	row := "%10s  %-40s  %-12s  %-6s  %6s  %12s  %s\n"
	fmt.Fprintf(out, row, "SECONDS", "CALLER", "ACCOUNT", "METHOD", "STATUS", "BYTES", "PATH")
	for _, r := range h.Records {
		if q := r.Registry; q != nil {
			fmt.Fprintf(out, row, fmt.Sprintf("%.3f", (r.Time-begin).Seconds()), cmp.Or(q.Caller, "-"), cmp.Or(q.Account, "-"),
				q.Method, fmt.Sprint(q.Status), fmt.Sprint(q.Bytes), q.Host+q.Path)
		}
	}
	return out.Flush()
}
