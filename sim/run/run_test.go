package run_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/layersim/layersim/sim/check"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// library is all scenarios but those that harm what a cluster itself runs on.
func library(tb testing.TB) []*scenario.Scenario {
	tb.Helper()
	list, err := scenario.Load([]string{"../../scenarios"})
	if err != nil {
		tb.Fatal(err)
	}
	return slices.DeleteFunc(list, func(s *scenario.Scenario) bool { return slices.Contains(s.Needs, "host") })
}

func written(tb testing.TB, h *history.History) []byte {
	tb.Helper()
	var text bytes.Buffer
	if err := history.Write(&text, h); err != nil {
		tb.Fatal(err)
	}
	return text.Bytes()
}

// The same scenario and seed give the same history, byte for byte; another seed gives another one.
func TestSameSeedSameBytes(t *testing.T) {
	seeds := 50
	if testing.Short() {
		seeds = 5
	}
	list := library(t)
	different := map[string]bool{}
	results := make(chan string, seeds)
	t.Run("seeds", func(t *testing.T) {
		for seed := range seeds {
			s := list[seed%len(list)]
			t.Run(fmt.Sprintf("%s %d", s.Name, seed), func(t *testing.T) {
				t.Parallel()
				var first []byte
				for n := range 3 {
					r := run.Scenario(t.Context(), s, run.Options{Seed: uint64(seed)}, nil)
					if r.Err != nil {
						t.Fatal(r.Err)
					}
					text := written(t, r.History)
					if n == 0 {
						first = text
						results <- s.Name + string(text)
					} else if !bytes.Equal(text, first) {
						t.Fatalf("run %d differs from the first:\n%s", n+1, firstDifference(first, text))
					}
				}
			})
		}
	})
	close(results)
	for text := range results {
		different[text] = true
	}
	if len(different) != seeds {
		t.Errorf("%d seeds give %d histories: the schedule doesn't depend on the seed", seeds, len(different))
	}
}

func firstDifference(a, b []byte) string {
	x, y := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	for n := range min(len(x), len(y)) {
		if x[n] != y[n] {
			return x[n] + "\n" + y[n]
		}
	}
	return fmt.Sprintf("%d and %d lines", len(x), len(y))
}

// The library passes on the simulated cluster, with more than one schedule.
func TestLibraryPasses(t *testing.T) {
	for _, s := range library(t) {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s seed %d", s.Name, seed+1), func(t *testing.T) {
				t.Parallel()
				r := run.Scenario(t.Context(), s, run.Options{Seed: seed + 1}, nil)
				if r.Verdict != report.Passed {
					t.Errorf("%s: %v", r.Verdict, r.Err)
					for _, f := range r.Failures {
						t.Errorf("%s: %s (at %.1f s, revision %d)", f.Check, f.Message, f.VirtualSeconds, f.Revision)
					}
				}
			})
		}
	}
}

// A saved history is judged like the run that left it: passed stays passed, and the same failures are found.
func TestSavedHistoriesAreJudgedAlike(t *testing.T) {
	for _, name := range []string{"happy-path", "build-failure-three-retries"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := named(t, name)
			for _, broken := range []bool{false, true} {
				if broken { // an expectation that can't be met
					s = named(t, name)
					last := &s.Steps[len(s.Steps)-1]
					never := scenario.Expectation{Text: "node nobody: {count: 1}", Object: &scenario.ObjectExpectation{
						Ref: scenario.Ref{Kind: "Node", Name: "nobody"}}}
					last.Settles = append(last.Settles, never)
				}
				r := run.Scenario(t.Context(), s, run.Options{Seed: 1}, nil)
				if passed := r.Verdict == report.Passed; r.Err != nil || passed == broken {
					t.Fatalf("broken %v: %s: %v %+v", broken, r.Verdict, r.Err, r.Failures)
				}
				saved, err := history.Read(bytes.NewReader(written(t, r.History)))
				if err != nil {
					t.Fatal(err)
				}
				failures, err := check.History(saved, r.Scenario, cluster.Columns)
				if err != nil {
					t.Fatal(err)
				}
				if len(failures) != len(r.Failures) {
					t.Fatalf("broken %v: %d failures when judged again, %d in the run: %+v, %+v", broken, len(failures), len(r.Failures), failures, r.Failures)
				}
				for n, f := range failures {
					if f.Check != r.Failures[n].Check || f.Revision != r.Failures[n].Revision {
						t.Errorf("judged again %+v, in the run %+v", f, r.Failures[n])
					}
				}
			}
		})
	}
}

func named(tb testing.TB, name string) *scenario.Scenario {
	tb.Helper()
	for _, s := range library(tb) {
		if s.Name == name {
			return s
		}
	}
	tb.Fatalf("there is no scenario %s", name)
	return nil
}

// No credential that a cluster ever made is found in a history or a report.
func TestSecretsStaySecret(t *testing.T) {
	for _, s := range library(t) {
		if s.Area != "secrets" {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			var passwords []string
			r := run.Scenario(t.Context(), s, run.Options{Seed: 1, Password: func(p string) { passwords = append(passwords, p) }}, nil)
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			if len(passwords) < 3 {
				t.Fatalf("only %d passwords were made", len(passwords))
			}
			var out bytes.Buffer
			out.Write(written(t, r.History))
			suite := &report.Suite{Cluster: "sim", Scenarios: []*report.Result{r}}
			for _, write := range []func() error{
				func() error { return report.Text(&out, suite, report.TextOptions{Verbose: true}) },
				func() error { return report.JSON(&out, suite) },
				func() error { return report.JUnit(&out, suite) },
				func() error { return report.HTML(&out, suite) },
			} {
				if err := write(); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range passwords {
				for _, form := range spellings(p) {
					if bytes.Contains(out.Bytes(), []byte(form)) {
						t.Errorf("%q is in the output", form)
					}
				}
			}
		})
	}
}
