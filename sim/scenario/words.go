package scenario

import (
	"fmt"
	"slices"
	"strings"
)

// Sections of the language, in the order of the manual.
const (
	SectionScenario    = "A scenario"
	SectionStep        = "A step"
	SectionAction      = "Actions"
	SectionExpectation = "Expectations"
	SectionCheck       = "Checks of objects"
	SectionFault       = "Faults"
	SectionCluster     = "A cluster"
)

var sections = []string{
	SectionScenario, SectionStep, SectionAction, SectionExpectation, SectionCheck, SectionFault, SectionCluster,
}

// Word is a word of the language: an action, an expectation or a field.
type Word struct {
	Name    string
	Section string
	// Short is one line.
	Short string
	// Grammar shows the forms, one a line.
	Grammar string
	// Notes says what a reader of the other fields would still ask.
	Notes string
	// Example is what may stand in a file: of an action and of a step's field an entry of a step, of an expectation and a check an
	// expectation, of the others an entry of the mapping that they belong to.
	Example string

	act    func(*reading, *node) []Action
	expect func(r *reading, field string, name, value *node, e *Expectation)
	// named expectations have a name behind the word; state says that it can hold for a while, as always needs.
	named, state bool
}

// objectWord stands for all kinds in the table.
const objectWord = "KIND"

// Words returns the whole language, by section and name. The list is the caller's own.
func Words() []Word { return slices.Clone(words) }

// FindWord finds a word by its name; where an action or expectation and a field have the same name, it is the former.
func FindWord(name string) (Word, bool) {
	found, ok := Word{}, false
	for _, w := range words {
		if w.Name == name && (!ok || found.act == nil && found.expect == nil) {
			found, ok = w, true
		}
	}
	return found, ok
}

// Explain prints the manual of a word, in all its meanings; "" prints one line for each word. An unknown word gives "".
func Explain(name string) string {
	var b strings.Builder
	if name == "" {
		for i, section := range sections {
			if i > 0 {
				b.WriteString("\n")
			}
			b.WriteString(section + "\n")
			for _, w := range words {
				if w.Section == section {
					fmt.Fprintf(&b, "  %-18s %s\n", w.Name, w.Short)
				}
			}
		}
		return b.String()
	}
	for _, w := range words {
		if w.Name == name {
			if b.Len() > 0 {
				b.WriteString("\n")
			}
			w.write(&b)
		}
	}
	if b.Len() == 0 {
		if k, ok := FindKind(name); ok {
			k.write(&b)
		}
	}
	return b.String()
}

func (w Word) write(b *strings.Builder) {
	fmt.Fprintf(b, "%s (%s): %s\n\n", w.Name, strings.ToLower(w.Section), w.Short)
	indent(b, w.Grammar)
	if w.Notes != "" {
		b.WriteString("\n" + w.Notes + "\n")
	}
	if w.Example != "" {
		b.WriteString("\nFor example:\n\n")
		indent(b, w.Example)
	}
}

func (k Kind) write(b *strings.Builder) {
	fmt.Fprintf(b, "%s (kind): %s\n\n", k.Kind, k.GroupVersion())
	fmt.Fprintf(b, "\tother spellings: %s\n", strings.Join(k.Aliases, ", "))
	switch {
	case k.Namespace == "*":
		b.WriteString("\tnamespace: any, unless the name is namespace/name\n")
	case k.Namespaced:
		fmt.Fprintf(b, "\tnamespace: %s, unless the name is namespace/name\n", k.Namespace)
	}
	fmt.Fprintf(b, "\tcolumns: %s\n", strings.Join(k.Columns, ", "))
	if k.Conditions != nil {
		fmt.Fprintf(b, "\tconditions: %s\n", strings.Join(k.Conditions, ", "))
	}
	if k.Phases != nil {
		fmt.Fprintf(b, "\tphases: %s\n", strings.Join(k.Phases, ", "))
	}
}

func indent(b *strings.Builder, text string) {
	for line := range strings.Lines(strings.TrimSuffix(text, "\n") + "\n") {
		if line == "\n" {
			b.WriteString(line)
			continue
		}
		b.WriteString("\t" + line)
	}
}

// Names lists what can be explained: all words and all kinds.
func Names() []string {
	var names []string
	for _, w := range words {
		names = append(names, w.Name)
	}
	names = append(names, kindWords()...)
	slices.Sort(names)
	return slices.Compact(names)
}

// Suggest says what was probably meant by a word that isn't one.
func Suggest(word string, candidates []string) string { return nearest(word, candidates) }
