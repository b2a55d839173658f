package release_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/layersim/layersim/sim/compare"
	"github.com/layersim/layersim/sim/scenario"
)

// What TestRecordings reads is sound, and explains no recording that no scenario follows. The recordings themselves, which that
// test needs, are not here.
func TestRecordedIsSound(t *testing.T) {
	text, err := os.ReadFile("testdata/differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	explained, err := compare.ParseExplanations(text)
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs("testdata/recorded")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("../../..") // scenarios name files from there
	list, err := scenario.Load([]string{here})
	if err != nil {
		t.Fatal(err)
	}
	var followed []string
	for _, s := range list {
		if len(s.Source["observed"]) == 0 {
			t.Errorf("%s follows no recording", s.Pos.File)
		}
		followed = append(followed, s.Source["observed"]...)
	}
	for _, e := range explained.Entries {
		known := false
		for _, name := range followed {
			known = known || scenario.Match(e.Scenario, name)
		}
		if !known {
			t.Errorf("%s: no scenario follows it", e)
		}
	}
}
