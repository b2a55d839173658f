package scenario

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMistakes compares what is said of each file in testdata/mistakes with the .want file beside it. With
// LAYERSIM_UPDATE=1 it writes those.
func TestMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/mistakes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			good, err := Load([]string{file})
			var mistakes Errors
			if !errors.As(err, &mistakes) {
				t.Fatalf("got %d scenarios and error %v, want Errors", len(good), err)
			}
			for _, e := range mistakes {
				if e.Line == 0 || e.Column == 0 || e.Value == "" || e.Rule == "" || e.Instead == "" && !strings.HasPrefix(e.Rule, "is not YAML") {
					t.Errorf("says too little: %+v", *e)
				}
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".want"
			got := err.Error() + "\n"
			if os.Getenv("LAYERSIM_UPDATE") != "" {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
