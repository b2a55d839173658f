//go:build e2e

package e2e

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

// artifacts are what a scenario leaves in a folder of its own.
type artifacts struct {
	folder string
	// logs is the folder in which programs go on writing, and begin how long each file was when the scenario began.
	logs  string
	begin map[string]int64
}

// newArtifacts removes what an earlier run left in the folder.
func newArtifacts(folder, logs string) (*artifacts, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	a := &artifacts{folder: folder, logs: logs, begin: map[string]int64{}}
	return a, errors.Join(os.RemoveAll(folder), a.each(func(name string, size int64) error {
		a.begin[name] = size
		return nil
	}))
}

// each visits the logs.
func (a *artifacts) each(visit func(name string, size int64) error) error {
	entries, err := os.ReadDir(a.logs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() {
			err = visit(e.Name(), info.Size())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *artifacts) write(r *report.Result) error {
	errs := []error{a.file("timeline.txt", func(w io.Writer) error { return text(w, r, report.TextOptions{Verbose: true}) })}
	if r.History != nil {
		errs = append(errs,
			a.file("history.jsonl", func(w io.Writer) error { return history.Write(w, r.History) }),
			a.file("registry.txt", func(w io.Writer) error { return journal(w, r.History) }))
	}
	errs = append(errs, a.each(func(name string, size int64) error {
		from := a.begin[name]
		if size < from {
			from = 0 // the program was started again
		}
		if size == from {
			return nil
		}
		return a.file(filepath.Join("logs", name), func(w io.Writer) error {
			log, err := os.Open(filepath.Join(a.logs, name))
			if err != nil {
				return err
			}
			defer log.Close()
			_, err = io.Copy(w, io.NewSectionReader(log, from, size-from))
			return err
		})
	}))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write artifacts: %w", err)
	}
	return nil
}

// file makes a file in the folder.
func (a *artifacts) file(name string, write func(io.Writer) error) error {
	path := filepath.Join(a.folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// text writes a report of one scenario.
func text(w io.Writer, r *report.Result, o report.TextOptions) error {
	return report.Text(w, &report.Suite{Cluster: *clusterFlag, Seed: seed, Scenarios: []*report.Result{r}}, o)
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
