package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares what write writes with a file of testdata, and two runs with each other.
func golden(t *testing.T, name string, write func(io.Writer, *Suite) error) {
	t.Helper()
	var one, two bytes.Buffer
	if err := write(&one, suite(t)); err != nil {
		t.Fatal(err)
	}
	if err := write(&two, suite(t)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(one.String(), two.String()); diff != "" {
		t.Errorf("two runs differ:\n%s", diff)
	}
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, one.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), one.String()); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", file, diff)
	}
}

func TestText(t *testing.T) {
	golden(t, "report.txt", func(w io.Writer, s *Suite) error { return Text(w, s, TextOptions{}) })
	golden(t, "verbose.txt", func(w io.Writer, s *Suite) error { return Text(w, s, TextOptions{Verbose: true}) })
}

func TestJSON(t *testing.T) { golden(t, "report.json", JSON) }

func TestJUnit(t *testing.T) {
	golden(t, "junit.xml", JUnit)
	var b bytes.Buffer
	if err := JUnit(&b, suite(t)); err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(b.Bytes(), &junitSuites{}); err != nil {
		t.Errorf("not XML: %v", err)
	}
}

func TestColor(t *testing.T) {
	var plain, color bytes.Buffer
	s := suite(t)
	if err := Text(&plain, s, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := Text(&color, s, TextOptions{Color: true}); err != nil {
		t.Fatal(err)
	}
	got := color.String()
	for _, e := range escapes {
		got = strings.ReplaceAll(got, e, "")
	}
	if got = strings.ReplaceAll(got, "\x1b[0m", ""); got != plain.String() || color.Len() == plain.Len() {
		t.Errorf("colors change more than colors:\n%s", cmp.Diff(plain.String(), got))
	}
}

func TestDuration(t *testing.T) {
	for s, want := range map[float64]string{0: "0s", 0.25: "0.2s", 59.94: "59.9s", 187: "3m07s", 4323: "1h12m03s", -5: "-5s"} {
		if got := human(s); got != want {
			t.Errorf("human(%v) = %s, want %s", s, got, want)
		}
	}
	for s, want := range map[float64]string{0: "0.0s", 5.06: "5.0s", 59.99: "59.9s", 187.04: "3m07.0s", 4323.4: "1h12m03.4s"} {
		if got := stamp(seconds(s)); got != want {
			t.Errorf("stamp(%v) = %s, want %s", s, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for in, want := range map[string]string{
		"layered-" + oneHash + " Building": "layered-01234567 Building",
		"os-image@" + oneDigest:            "os-image@sha256:11111111",
		"from (" + pushSpec + "@" + oneDigest + ") to quay.io/a/b@" + twoDigest + " at a/b": "from (os-image@sha256:11111111) to b@sha256:22222222 at a/b",
		oneHash[:19]: oneHash[:19],
		oneHash[:20]: oneHash[:8],
		"":           "",
	} {
		if got := short(in); got != want {
			t.Errorf("short(%q) = %q, want %q", in, got, want)
		}
	}
}

// A log or a message must not steer the terminal.
func TestControlCharacters(t *testing.T) {
	var b bytes.Buffer
	s := &Suite{Scenarios: []*Result{{Name: "x", Verdict: Failed, Failures: []Failure{{Check: "c", Message: "a\x1b[2Jb\u009bc"}}}}}
	if err := Text(&b, s, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); strings.ContainsAny(got, "\x1b\u009b") || !strings.Contains(got, "a·[2Jb·c") {
		t.Errorf("got %q", got)
	}
}

// What failed by a known defect is no failure: it says why in its line, and JUnit has it as skipped.
func TestKnownDefect(t *testing.T) {
	s := &Suite{Scenarios: []*Result{{Name: "x", Verdict: Known, Err: errors.New("it is so"), Failures: []Failure{{Check: "c", Message: "m"}}}}}
	var text, junit bytes.Buffer
	if err := errors.Join(Text(&text, s, TextOptions{}), JUnit(&junit, s)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"known   x", "it is so", "0 passed, 0 failed, 0 skipped, 1 failed by known defects"} {
		if !strings.Contains(text.String(), want) || strings.Contains(text.String(), "---") {
			t.Errorf("no %q in %s", want, text.String())
		}
	}
	for _, want := range []string{`failures="0" errors="0" skipped="1"`, `message="failed by a known defect: it is so"`} {
		if !strings.Contains(junit.String(), want) {
			t.Errorf("no %s in %s", want, junit.String())
		}
	}
}

func TestTimelineOfNothing(t *testing.T) {
	if got := Timeline(nil); got != nil {
		t.Errorf("got %v", got)
	}
	for _, write := range []func(io.Writer, *Suite) error{JSON, JUnit} {
		if err := write(io.Discard, &Suite{Scenarios: []*Result{{Verdict: Failed}}}); err != nil {
			t.Error(err)
		}
	}
}
