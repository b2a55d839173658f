//go:build e2e

package e2e

import (
	"encoding/xml"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/ginkgo/v2"

	"github.com/layersim/layersim/sim/history"
)

// runSuite runs this suite in a process of its own on simulated clusters, with the scenarios in testdata.
func runSuite(t *testing.T, flags ...string) (output string, status int) {
	t.Helper()
	if GinkgoParallelProcess() != 1 {
		t.Skip("the first of the parallel processes does it")
	}
	flags = append([]string{"-test.run=^TestE2E$", "-cluster=sim", "-scenarios=e2e/testdata", "-ginkgo.no-color"}, flags...)
	out, err := exec.CommandContext(t.Context(), os.Args[0], flags...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out), 0
}

// A scenario that fails or can't be run fails its spec and leaves its artifacts, one that the cluster can't run is skipped,
// and others are not touched by that.
func TestSuite(t *testing.T) {
	dir := t.TempDir()
	// What an earlier run left is removed.
	old := filepath.Join(dir, "passes", "history.jsonl")
	if err := errors.Join(os.Mkdir(filepath.Dir(old), 0o755), os.WriteFile(old, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "junit.xml")
	output, status := runSuite(t, "-artifacts="+dir, "-ginkgo.junit-report="+file)
	if status != 1 {
		t.Errorf("exit status %d, want 1\n%s", status, output)
	}

	type testcase struct {
		Name   string `xml:"name,attr"`
		Status string `xml:"status,attr"`
		Failed *struct {
			Message string `xml:"message,attr"`
			Text    string `xml:",chardata"`
		} `xml:"failure"`
		Skipped *struct {
			Message string `xml:"message,attr"`
		} `xml:"skipped"`
	}
	var junit struct {
		Cases []testcase `xml:"testsuite>testcase"`
	}
	if text, err := os.ReadFile(file); err != nil || xml.Unmarshal(text, &junit) != nil {
		t.Fatalf("no JUnit report: %v\n%s", err, output)
	}
	verdicts, cases := map[string]string{}, map[string]testcase{}
	for _, c := range junit.Cases {
		if name, found := strings.CutPrefix(c.Name, "[It] "); found {
			name, _, _ = strings.Cut(name, " [")
			verdicts[name], cases[name] = c.Status, c
		}
	}
	want := map[string]string{"passes": "passed", "fails/once": "failed", "cannot-run": "failed", "lacks": "skipped", "yesterday": "skipped"}
	if diff := cmp.Diff(want, verdicts); diff != "" {
		t.Fatalf("verdicts (-want +got):\n%s\n%s", diff, output)
	}
	for name, texts := range map[string][]string{
		"fails/once": {
			"✗ step 1, wait for what won't come", // the failure
			"begins: wait for what won't come",   // its timeline
			"fails.yaml",                         // where the scenario is
			"artifacts: " + filepath.Join(dir, "fails", "once"),
		},
		"cannot-run": {"namespaces \"nowhere\" not found", "artifacts: " + filepath.Join(dir, "cannot-run")},
	} {
		for _, text := range texts {
			if message := cases[name].Failed.Message + cases[name].Failed.Text; !strings.Contains(message, text) {
				t.Errorf("the failure of %s doesn't say %q:\n%s", name, text, message)
			}
		}
	}
	for name, text := range map[string]string{"lacks": "it needs real-kube", "yesterday": "it holds until 4.18"} {
		if got := cases[name].Skipped.Message; !strings.Contains(got, text) {
			t.Errorf("%s was skipped for %q, want %q", name, got, text)
		}
	}

	for name, text := range map[string]string{
		"fails/once/timeline.txt":  "✗ step 1, wait for what won't come",
		"fails/once/registry.txt":  "quay.io/v2/",
		"cannot-run/timeline.txt":  "nowhere",
		"fails/once/history.jsonl": `"scenario":"fails/once"`,
		"cannot-run/history.jsonl": `"scenario":"cannot-run"`,
		"cannot-run/registry.txt":  "METHOD",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.Contains(string(got), text) {
			t.Errorf("%s doesn't say %q: %v\n%.2000s", name, text, err, got)
		}
	}
	if f, err := os.Open(filepath.Join(dir, "fails/once/history.jsonl")); err == nil {
		defer f.Close()
		if h, err := history.Read(f); err != nil || len(h.Records) < 100 {
			t.Errorf("the history can't be read: %v", err)
		}
	}
	for _, folder := range []string{"passes", "lacks", "yesterday"} {
		if _, err := os.Stat(filepath.Join(dir, folder)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s has artifacts: %v", folder, err)
		}
	}
}

// Ginkgo's flags choose the specs, a suite whose specs pass succeeds, and what it does is told meanwhile.
func TestChosen(t *testing.T) {
	dir := t.TempDir()
	progress := filepath.Join(dir, "progress")
	output, status := runSuite(t, "-artifacts="+dir, "-keep", "-progress="+progress, "-ginkgo.label-filter=area:suite && release: isEmpty", "-ginkgo.focus=pass|yesterday")
	if status != 0 || !strings.Contains(output, "Will run 1 of 5 specs") {
		t.Errorf("exit status %d\n%s", status, output)
	}
	if _, err := os.Stat(filepath.Join(dir, "passes", "history.jsonl")); err != nil {
		t.Error(err)
	}
	want := "passes: making its cluster\npasses: step 1/1, look at the pool\npasses: passed ("
	if got, err := os.ReadFile(progress); err != nil || !strings.HasPrefix(string(got), want) {
		t.Errorf("told %q, want %q: %v", got, want, err)
	}
}

// What is wrong with the suite's own surroundings is said, and nothing passes.
func TestRefused(t *testing.T) {
	t.Setenv("LAYERSIM_CONTROLPLANE", t.TempDir())
	for want, flags := range map[string][]string{
		"the control plane is not on this machine: run make controlplane": {"-cluster=envtest"},
		`-cluster "cloud" is not a cluster: envtest, kind, sim`:           {"-cluster=cloud"},
		"-speed 0 must be more than 0":                                    {"-speed=0"},
		"/nowhere/progress":                                               {"-progress=/nowhere/progress"},
		"nowhere.yaml":                                                    {"-scenarios=nowhere.yaml"},
	} {
		if output, status := runSuite(t, append(flags, "-artifacts="+t.TempDir())...); status != 1 || !strings.Contains(output, want) {
			t.Errorf("%v: exit status %d, want 1 with %q:\n%s", flags, status, want, output)
		}
	}
}
