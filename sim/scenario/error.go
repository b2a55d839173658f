package scenario

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// String is file:line:column, or only the file where there is no line.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Error is one mistake in a file: where it is, what stands there, which rule it breaks and what to write instead.
type Error struct {
	Position
	// Field is the name of the field that the value belongs to.
	Field string
	// Value is the value as a person would recognise it, strings in quotes.
	Value string
	// Rule completes the sentence that begins with the value.
	Rule string
	// Instead says what to write instead.
	Instead string
}

// Error is a single line: position: field: value rule: instead.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", e.Position)
	if e.Field != "" {
		fmt.Fprintf(&b, "%s: ", e.Field)
	}
	if e.Value != "" {
		b.WriteString(e.Value + " ")
	}
	b.WriteString(e.Rule)
	if e.Instead != "" {
		b.WriteString(": " + e.Instead)
	}
	return b.String()
}

// Errors are all mistakes that were found, ordered by file, line and column. One of them is no reason to stop looking
// for others.
type Errors []*Error

// Error has one line for each mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// sorted returns the errors ordered and without repetitions, which the expansion of variants produces.
func (e Errors) sorted() Errors {
	all := slices.Clone(e)
	slices.SortStableFunc(all, func(a, b *Error) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			strings.Compare(a.Error(), b.Error()))
	})
	return slices.CompactFunc(all, func(a, b *Error) bool { return *a == *b })
}

// nearest returns the word that was probably meant: the candidate with the fewest edits, if they are few enough.
func nearest(word string, candidates []string) string {
	best, distance := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if d := edits(strings.ToLower(word), strings.ToLower(c)); d < distance && d < max(len(word), len(c)) {
			best, distance = c, d
		}
	}
	return best
}

// edits is the Levenshtein distance, a swap of neighbours counting as one edit.
func edits(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// oneOf tells what could stand instead of an unknown word.
func oneOf(word string, candidates []string) string {
	if near := nearest(word, candidates); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(candidates) == 0 {
		return "there is none"
	}
	return "one of " + strings.Join(candidates, ", ")
}
