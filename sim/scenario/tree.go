package scenario

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

type nodeKind int

const (
	scalarNode nodeKind = iota
	mappingNode
	sequenceNode
)

// node is a YAML value with its place. Aliases and merge keys are already followed.
type node struct {
	kind nodeKind
	pos  Position
	// text is what a scalar says: the content of a string, a number as it is written.
	text string
	// value of a scalar: nil, bool, int64, float64 or string.
	value any
	// keys of a mapping.
	keys []*node
	// values of a mapping or items of a sequence.
	values []*node
}

// get returns the value of a key of a mapping, or nil.
func (n *node) get(key string) *node {
	if n == nil || n.kind != mappingNode {
		return nil
	}
	for i, k := range n.keys {
		if k.text == key {
			return n.values[i]
		}
	}
	return nil
}

// without returns a mapping without some of its keys, and anything else as it is.
func (n *node) without(keys ...string) *node {
	if n.kind != mappingNode {
		return n
	}
	out := &node{kind: mappingNode, pos: n.pos}
	for i, k := range n.keys {
		if !slices.Contains(keys, k.text) {
			out.keys, out.values = append(out.keys, k), append(out.values, n.values[i])
		}
	}
	return out
}

func (n *node) null() bool { return n == nil || n.kind == scalarNode && n.value == nil }

// show names the value in a message.
func (n *node) show() string {
	switch {
	case n.null():
		return "nothing"
	case n.kind == mappingNode && len(n.keys) == 0:
		return "an empty mapping"
	case n.kind == mappingNode:
		return "a mapping"
	case n.kind == sequenceNode && len(n.values) == 0:
		return "an empty list"
	case n.kind == sequenceNode:
		return "a list"
	}
	if s, ok := n.value.(string); ok {
		if len(s) > 60 {
			s = s[:57] + "..."
		}
		return strconv.Quote(s)
	}
	return n.text
}

// flow writes the value on one line, as flow YAML.
func (n *node) flow() string {
	switch n.kind {
	case mappingNode:
		parts := make([]string, len(n.keys))
		for i, k := range n.keys {
			parts[i] = k.text
			if !n.values[i].null() {
				parts[i] += ": " + n.values[i].flow()
			}
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case sequenceNode:
		parts := make([]string, len(n.values))
		for i, v := range n.values {
			parts[i] = v.flow()
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	if s, ok := n.value.(string); ok && (s == "" || strings.ContainsAny(s, ":,#{}[]\n\"")) {
		return strconv.Quote(s)
	}
	return n.text
}

// data is the value as JSON would have it.
func (n *node) data() any {
	switch n.kind {
	case mappingNode:
		m := make(map[string]any, len(n.keys))
		for i, k := range n.keys {
			m[k.text] = n.values[i].data()
		}
		return m
	case sequenceNode:
		list := make([]any, len(n.values))
		for i, v := range n.values {
			list[i] = v.data()
		}
		return list
	}
	return n.value
}

// parseYAML returns the root of each document of a file.
func parseYAML(file string, data []byte) ([]*node, Errors) {
	parsed, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		e := &Error{Position: Position{File: file, Line: 1, Column: 1}, Rule: "is not YAML: " + err.Error()}
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			e.Rule = "is not YAML: " + syntax.GetMessage()
			if t := syntax.GetToken(); t != nil && t.Position != nil {
				e.Line, e.Column = t.Position.Line, t.Position.Column
				e.Value = strconv.Quote(strings.TrimSpace(t.Value))
			}
		}
		if e.Value == "" {
			e.Value = "the file"
		}
		return nil, Errors{e}
	}
	r := &reader{file: file}
	var roots []*node
	for _, doc := range parsed.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentGroupType {
			continue
		}
		r.anchors = map[string]*node{}
		roots = append(roots, r.read(doc.Body))
	}
	return roots, r.errs
}

// reader turns the syntax tree of the YAML library into nodes.
type reader struct {
	file    string
	anchors map[string]*node
	errs    Errors
}

func (r *reader) at(t *token.Token) Position {
	if t == nil || t.Position == nil {
		return Position{File: r.file, Line: 1, Column: 1}
	}
	return Position{File: r.file, Line: t.Position.Line, Column: t.Position.Column}
}

func (r *reader) fail(pos Position, value, rule, instead string) {
	r.errs = append(r.errs, &Error{Position: pos, Value: value, Rule: rule, Instead: instead})
}

func (r *reader) read(n ast.Node) *node {
	switch n := n.(type) {
	case nil:
		return &node{pos: Position{File: r.file, Line: 1, Column: 1}}
	case *ast.MappingNode:
		pos := r.at(n.Start)
		if len(n.Values) > 0 && !n.IsFlowStyle {
			pos = r.at(n.Values[0].Key.GetToken())
		}
		return r.mapping(pos, n.Values)
	case *ast.MappingValueNode:
		return r.mapping(r.at(n.Key.GetToken()), []*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		out := &node{kind: sequenceNode, pos: r.at(n.Start)}
		for _, v := range n.Values {
			out.values = append(out.values, r.read(v))
		}
		return out
	case *ast.AnchorNode:
		out := r.read(n.Value)
		r.anchors[n.Name.GetToken().Value] = out
		return out
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		if out, ok := r.anchors[name]; ok {
			return out
		}
		r.fail(r.at(n.Start), strconv.Quote("*"+name), "names no anchor of this document",
			`a text that begins with * must be in quotes`)
		return &node{pos: r.at(n.Start), text: "*" + name, value: "*" + name}
	case *ast.TagNode:
		out := r.read(n.Value)
		if n.Start.Value == "!!str" && out.kind == scalarNode {
			copied := *out
			copied.value = out.text
			return &copied
		}
		if !strings.HasPrefix(n.Start.Value, "!!") {
			r.fail(r.at(n.Start), strconv.Quote(n.Start.Value), "is a YAML tag, which has no meaning here", "leave it out")
		}
		return out
	case *ast.LiteralNode:
		return &node{pos: r.at(n.Start), text: n.Value.Value, value: n.Value.Value}
	case *ast.StringNode:
		return &node{pos: r.at(n.Token), text: n.Value, value: n.Value}
	case *ast.NullNode:
		return &node{pos: r.at(n.Token), text: "null"}
	case *ast.BoolNode:
		return &node{pos: r.at(n.Token), text: n.Token.Value, value: n.Value}
	case *ast.IntegerNode:
		out := &node{pos: r.at(n.Token), text: n.Token.Value}
		switch v := n.Value.(type) {
		case int64:
			out.value = v
		case uint64:
			if v > math.MaxInt64 {
				r.fail(out.pos, out.text, "is too large a number", "at most 9223372036854775807")
			}
			out.value = int64(v)
		}
		return out
	case *ast.FloatNode:
		return &node{pos: r.at(n.Token), text: n.Token.Value, value: n.Value}
	default:
		r.fail(r.at(n.GetToken()), strconv.Quote(n.String()), "is YAML that has no meaning here", "plain mappings, lists, text and numbers")
		return &node{pos: r.at(n.GetToken())}
	}
}

func (r *reader) mapping(pos Position, entries []*ast.MappingValueNode) *node {
	out := &node{kind: mappingNode, pos: pos}
	var merged []*node
	for _, e := range entries {
		value := r.read(e.Value)
		if e.Key.IsMergeKey() {
			switch value.kind {
			case mappingNode:
				merged = append(merged, value)
			case sequenceNode:
				merged = append(merged, value.values...)
			default:
				r.fail(value.pos, value.show(), "can't be merged", "an alias of a mapping")
			}
			continue
		}
		var key ast.Node = e.Key
		if explicit, ok := e.Key.(*ast.MappingKeyNode); ok {
			key = explicit.Value
		}
		k := r.read(key)
		if k.kind != scalarNode {
			r.fail(k.pos, k.show(), "is not a key", "text")
			continue
		}
		if k.text == "null" && k.value == nil {
			k.text = ""
		}
		k.value = k.text
		if first := out.key(k.text); first != nil {
			r.fail(k.pos, strconv.Quote(k.text), fmt.Sprintf("stands twice in this mapping, first in line %d", first.pos.Line),
				"put both under one key, or name them differently")
			continue
		}
		out.keys, out.values = append(out.keys, k), append(out.values, value)
	}
	for _, m := range merged {
		for i, k := range m.keys {
			if out.key(k.text) == nil {
				out.keys, out.values = append(out.keys, k), append(out.values, m.values[i])
			}
		}
	}
	return out
}

func (n *node) key(text string) *node {
	for _, k := range n.keys {
		if k.text == text {
			return k
		}
	}
	return nil
}

// merge lays changes over a mapping: mappings are merged key by key, null removes a key, everything else replaces.
// Keys keep their order, new ones follow.
func merge(base, changes *node) *node {
	if base == nil || base.kind != mappingNode || changes.kind != mappingNode {
		return changes
	}
	out := &node{kind: mappingNode, pos: changes.pos}
	for i, k := range base.keys {
		change := changes.get(k.text)
		switch {
		case change == nil:
			out.keys, out.values = append(out.keys, k), append(out.values, base.values[i])
		case change.null():
		default:
			out.keys, out.values = append(out.keys, changes.key(k.text)), append(out.values, merge(base.values[i], change))
		}
	}
	for i, k := range changes.keys {
		if base.key(k.text) == nil && !changes.values[i].null() {
			out.keys, out.values = append(out.keys, k), append(out.values, changes.values[i])
		}
	}
	return out
}

// substitute replaces $(name) in all scalars and keys. A scalar that is nothing else takes the variable's type. $$( is
// a $( that is none of ours.
func (n *node) substitute(vars map[string]*node, unknown func(at *node, name string)) *node {
	out := &node{kind: n.kind, pos: n.pos, text: n.text, value: n.value}
	for _, k := range n.keys {
		out.keys = append(out.keys, k.substitute(vars, unknown))
	}
	for _, v := range n.values {
		out.values = append(out.values, v.substitute(vars, unknown))
	}
	s, ok := n.value.(string)
	if !ok || !strings.Contains(s, "$(") {
		return out
	}
	var b strings.Builder
	for rest := s; rest != ""; {
		i := strings.Index(rest, "$(")
		if i < 0 {
			b.WriteString(rest)
			break
		}
		end := strings.IndexByte(rest[i:], ')')
		switch {
		case i > 0 && rest[i-1] == '$':
			b.WriteString(rest[:i-1] + "$(")
			rest = rest[i+2:]
		case end < 0 || !isWord(rest[i+2:i+end]):
			b.WriteString(rest[:i+2])
			rest = rest[i+2:]
		default:
			name := rest[i+2 : i+end]
			v := vars[name]
			if v == nil {
				unknown(n, name)
				v = &node{text: name, value: name}
			}
			if s == "$("+name+")" {
				out.text, out.value = v.text, v.value
				return out
			}
			b.WriteString(rest[:i] + v.text)
			rest = rest[i+end+1:]
		}
	}
	out.text = b.String()
	out.value = out.text
	return out
}

// isWord says whether s could be the name of a variable.
func isWord(s string) bool {
	for i, c := range s {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c != '-' && c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}

// problems collects mistakes, and reads typed values from nodes on the way. The readers return false after they
// reported a mistake.
type problems struct{ errs Errors }

func (p *problems) fail(n *node, field, value, rule, instead string) {
	p.errs = append(p.errs, &Error{Position: n.pos, Field: field, Value: value, Rule: rule, Instead: instead})
}

// fields hands each entry of a mapping to its reader; what names the mapping: "a step". The order is the file's.
func (p *problems) fields(n *node, field, what string, known []string, read func(key string, k, v *node)) bool {
	if n.kind != mappingNode {
		p.fail(n, field, n.show(), "is not "+what, "a mapping with fields of "+strings.Join(known, ", "))
		return false
	}
	for i, k := range n.keys {
		found := false
		for _, name := range known {
			found = found || name == k.text
		}
		if !found {
			p.fail(k, field, strconv.Quote(k.text), "is not a field of "+what, oneOf(k.text, known))
			continue
		}
		read(k.text, k, n.values[i])
	}
	return true
}

func (p *problems) string(field string, n *node) (string, bool) {
	s, ok := n.value.(string)
	switch {
	case n.kind != scalarNode:
		p.fail(n, field, n.show(), "is not text", "a single word or a text")
		return "", false
	case n.null() || ok && s == "":
		p.fail(n, field, n.show(), "is not text", "something must stand here")
		return "", false
	case !ok:
		p.fail(n, field, n.text, "is not text", fmt.Sprintf("put it in quotes: %q", n.text))
		return "", false
	}
	return s, true
}

// text accepts any scalar, as it is written.
func (p *problems) text(field string, n *node) (string, bool) {
	if n.kind != scalarNode {
		p.fail(n, field, n.show(), "is not text", "a single value")
		return "", false
	}
	if n.value == nil {
		return "", true
	}
	return n.text, true
}

// strings accepts one text or a list of texts.
func (p *problems) strings(field string, n *node) ([]string, bool) {
	var out []string
	ok := p.list(field, n, func(item *node) bool {
		s, ok := p.string(field, item)
		out = append(out, s)
		return ok
	})
	return out, ok
}

// list reads a list, or the value itself as a list of one. An empty list is a mistake.
func (p *problems) list(field string, n *node, read func(item *node) bool) bool {
	if n.kind != sequenceNode {
		return read(n)
	}
	if len(n.values) == 0 {
		p.fail(n, field, "an empty list", "says nothing", "leave the field out")
		return false
	}
	ok := true
	for _, item := range n.values {
		ok = read(item) && ok
	}
	return ok
}

func (p *problems) integer(field string, n *node, least int64) (int64, bool) {
	i, ok := n.value.(int64)
	if !ok || n.kind != scalarNode {
		p.fail(n, field, n.show(), "is not a whole number", "a number such as 3, not in quotes")
		return 0, false
	}
	if i < least {
		p.fail(n, field, n.text, fmt.Sprintf("is less than %d", least), fmt.Sprintf("%d or more", least))
		return 0, false
	}
	return i, true
}

func (p *problems) boolean(field string, n *node) (value, ok bool) {
	b, ok := n.value.(bool)
	if !ok || n.kind != scalarNode {
		p.fail(n, field, n.show(), "is neither true nor false", "true or false, not in quotes")
		return false, false
	}
	return b, true
}

func (p *problems) duration(field string, n *node) (time.Duration, bool) {
	d, ok := parseDuration(n)
	if !ok {
		p.fail(n, field, n.show(), "is not a duration", `a number and a unit (s, m, h), e.g. "15m"`)
	}
	return d, ok
}

func parseDuration(n *node) (time.Duration, bool) {
	s, ok := n.value.(string)
	if !ok || n.kind != scalarNode {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d > 0
}

func (p *problems) choice(field string, n *node, choices ...string) (string, bool) {
	s, ok := p.string(field, n)
	if !ok {
		return "", false
	}
	for _, c := range choices {
		if s == c {
			return s, true
		}
	}
	p.fail(n, field, n.show(), "is not possible here", oneOf(s, choices))
	return "", false
}

// glob accepts text in which * stands for any characters and ? for one.
func (p *problems) glob(field string, n *node) (string, bool) {
	s, ok := p.string(field, n)
	return s, ok && p.isGlob(field, n, s)
}

func (p *problems) isGlob(field string, n *node, s string) bool {
	if strings.ContainsAny(s, "[]{}\\^$|()+ \t\n") {
		p.fail(n, field, strconv.Quote(s), "is not a glob", "only * (any characters) and ? (one character) have a meaning, and there are no spaces")
		return false
	}
	return true
}

// Match says whether the whole of s matches a glob, in which * stands for any characters, also none and also slashes,
// and ? for exactly one.
func Match(glob, s string) bool {
	// star and mark remember the last * and how much of s it took, to take one more on a mismatch.
	g, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case g < len(glob) && glob[g] == '*':
			star, mark = g, i
			g++
		case g < len(glob) && (glob[g] == '?' || glob[g] == s[i]):
			g++
			i++
		case star >= 0:
			mark++
			g, i = star+1, mark
		default:
			return false
		}
	}
	for g < len(glob) && glob[g] == '*' {
		g++
	}
	return g == len(glob)
}
