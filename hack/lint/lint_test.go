package main

import (
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"
)

// TestAnalyzer runs the linter on the packages below testdata, whose comments say what it must find there. What they
// don't mention must not be found.
func TestAnalyzer(t *testing.T) {
	analysistest.Run(t, analysistest.TestData(), analyzer, module+"...")
}
