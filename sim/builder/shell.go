package builder

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// The shell of RUN instructions. It knows lists (&& || ; newline &), pipelines, redirections, here documents, quoting,
// variables, command substitution, braces, file globs, if, for, { } and ( ). A while loop's body is not run. Scripts
// with case or functions are not interpreted and taken to succeed.

// errUnsupported marks a script that is right but beyond this shell.
var errUnsupported = errors.New("not interpreted")

type (
	sequence []andOr // each with its own end

	// andOr is a list of pipelines that && and || join.
	andOr struct {
		pipelines []pipeline
		operators []string // between them
	}
	pipeline struct {
		negate   bool
		commands []command
	}
	// command is a simple command (words) or a compound one (body).
	command struct {
		words     []string // raw, before expansion
		redirects []*redirect
		kind      string // "", "if", "for", "while", "{", "("
		name      string // for: the variable
		conds     []sequence
		bodies    []sequence // if: one for each condition, and one more for else
	}
	redirect struct {
		op     string // > >> < << <<- <<< >& &>
		fd     int
		target string // raw; of a here document its delimiter
		body   string
		expand bool
	}
)

type shellParser struct {
	src     string
	pos     int
	pending []*redirect // here documents whose bodies follow the next newline
}

func parseShell(src string) (sequence, error) {
	p := &shellParser{src: src}
	s, err := p.sequence()
	if err != nil {
		return nil, err
	}
	if p.pos < len(p.src) {
		return nil, fmt.Errorf("syntax error near unexpected token `%s'", p.operator(true))
	}
	return s, nil
}

// blanks skips spaces and comments, not newlines.
func (p *shellParser) blanks() {
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == ' ' || c == '\t' || c == '\r':
			p.pos++
		case c == '\\' && strings.HasPrefix(p.src[p.pos:], "\\\n"):
			p.pos += 2
		case c == '#':
			for p.pos < len(p.src) && p.src[p.pos] != '\n' {
				p.pos++
			}
		default:
			return
		}
	}
}

// newlines skips newlines too, and reads the here documents that they end.
func (p *shellParser) newlines() error {
	for {
		p.blanks()
		if p.pos >= len(p.src) || p.src[p.pos] != '\n' {
			return nil
		}
		if err := p.newline(); err != nil {
			return err
		}
	}
}

func (p *shellParser) newline() error {
	p.pos++
	for _, r := range p.pending {
		var body strings.Builder
		for {
			if p.pos >= len(p.src) {
				return fmt.Errorf("here-document delimited by end-of-file (wanted `%s')", r.target)
			}
			line, rest, _ := strings.Cut(p.src[p.pos:], "\n")
			p.pos = len(p.src) - len(rest)
			if r.op == "<<-" {
				line = strings.TrimLeft(line, "\t")
			}
			if line == r.target {
				break
			}
			body.WriteString(line + "\n")
		}
		r.body = body.String()
	}
	p.pending = nil
	return nil
}

// operator returns the operator at the position, "" if there is none.
func (p *shellParser) operator(take bool) string {
	p.blanks()
	for _, op := range []string{"&&", "||", ";;", ";", "|&", "|", "(", ")", "\n", "&"} {
		if strings.HasPrefix(p.src[p.pos:], op) && !strings.HasPrefix(p.src[p.pos:], "&>") {
			if take {
				p.pos += len(op)
			}
			return op
		}
	}
	return ""
}

// peekWord returns the word at the position without taking it.
func (p *shellParser) peekWord() string {
	save := p.pos
	w, err := p.word()
	p.pos = save
	if err != nil {
		return ""
	}
	return w
}

var closers = []string{"then", "elif", "else", "fi", "do", "done", "}", "esac"}

func (p *shellParser) sequence() (sequence, error) {
	var s sequence
	for {
		if err := p.newlines(); err != nil {
			return nil, err
		}
		if p.pos >= len(p.src) || p.operator(false) == ")" || slices.Contains(closers, p.peekWord()) {
			return s, nil
		}
		a, err := p.andOr()
		if err != nil {
			return nil, err
		}
		s = append(s, a)
		switch p.operator(false) {
		case ";", "&":
			p.operator(true)
		case "\n":
			if err := p.newlines(); err != nil {
				return nil, err
			}
		default:
			return s, nil
		}
	}
}

func (p *shellParser) andOr() (andOr, error) {
	var a andOr
	for {
		pl, err := p.pipeline()
		if err != nil {
			return a, err
		}
		a.pipelines = append(a.pipelines, pl)
		op := p.operator(false)
		if op != "&&" && op != "||" {
			return a, nil
		}
		p.operator(true)
		a.operators = append(a.operators, op)
		if err := p.newlines(); err != nil {
			return a, err
		}
	}
}

func (p *shellParser) pipeline() (pipeline, error) {
	var pl pipeline
	for p.peekWord() == "!" {
		if _, err := p.word(); err != nil {
			return pl, err
		}
		pl.negate = !pl.negate
		p.blanks()
	}
	for {
		c, err := p.command()
		if err != nil {
			return pl, err
		}
		pl.commands = append(pl.commands, c)
		if op := p.operator(false); op != "|" && op != "|&" {
			return pl, nil
		}
		p.operator(true)
		if err := p.newlines(); err != nil {
			return pl, err
		}
	}
}

func (p *shellParser) expect(word string) error {
	if err := p.newlines(); err != nil {
		return err
	}
	if p.operator(false) == ";" {
		p.operator(true)
		p.blanks()
	}
	w, err := p.word()
	if err != nil {
		return err
	}
	if w != word {
		return fmt.Errorf("syntax error: wanted `%s', found `%s'", word, w)
	}
	return nil
}

func (p *shellParser) command() (command, error) {
	p.blanks()
	var c command
	var err error
	switch {
	case p.operator(false) == "(":
		p.operator(true)
		c.kind = "("
		if c.bodies, err = p.bodies(); err != nil {
			return c, err
		}
		if p.operator(true) != ")" {
			return c, errors.New("syntax error: unexpected end of file (wanted `)')")
		}
	default:
		switch w := p.peekWord(); w {
		case "case", "function", "select", "coproc":
			return c, fmt.Errorf("%s: %w", w, errUnsupported)
		case "{":
			c.kind, p.pos = "{", p.pos+1
			if c.bodies, err = p.bodies(); err == nil {
				err = p.expect("}")
			}
		case "if":
			c, err = p.ifCommand()
		case "for":
			c, err = p.forCommand()
		case "while", "until":
			c.kind, p.pos = "while", p.pos+len(w)
			if c.conds, err = p.bodies(); err == nil {
				if err = p.expect("do"); err == nil {
					if c.bodies, err = p.bodies(); err == nil {
						err = p.expect("done")
					}
				}
			}
		default:
			return p.simple()
		}
		if err != nil {
			return c, err
		}
	}
	// Redirections of a compound command.
	rest, err := p.simple()
	if err != nil && !errors.Is(err, errEmptyCommand) {
		return c, err
	}
	if len(rest.words) > 0 {
		return c, fmt.Errorf("syntax error near unexpected token `%s'", rest.words[0])
	}
	c.redirects = rest.redirects
	return c, nil
}

func (p *shellParser) bodies() ([]sequence, error) {
	s, err := p.sequence()
	return []sequence{s}, err
}

func (p *shellParser) ifCommand() (command, error) {
	c := command{kind: "if"}
	p.pos += len("if")
	for {
		cond, err := p.sequence()
		if err != nil {
			return c, err
		}
		if err := p.expect("then"); err != nil {
			return c, err
		}
		body, err := p.sequence()
		if err != nil {
			return c, err
		}
		c.conds, c.bodies = append(c.conds, cond), append(c.bodies, body)
		w, err := p.word()
		if err != nil {
			return c, err
		}
		switch w {
		case "fi":
			return c, nil
		case "else":
			body, err := p.sequence()
			if err != nil {
				return c, err
			}
			c.bodies = append(c.bodies, body)
			return c, p.expect("fi")
		case "elif":
		default:
			return c, fmt.Errorf("syntax error: wanted `fi', found `%s'", w)
		}
	}
}

func (p *shellParser) forCommand() (command, error) {
	c := command{kind: "for"}
	p.pos += len("for")
	p.blanks()
	var err error
	if c.name, err = p.word(); err != nil {
		return c, err
	}
	if c.name == "" {
		return c, fmt.Errorf("for ((: %w", errUnsupported)
	}
	if err := p.newlines(); err != nil {
		return c, err
	}
	if p.peekWord() == "in" {
		p.pos += len("in")
		for p.blanks(); p.operator(false) == "" && p.pos < len(p.src); p.blanks() {
			w, err := p.word()
			if err != nil {
				return c, err
			}
			c.words = append(c.words, w)
		}
	}
	if err := p.expect("do"); err != nil {
		return c, err
	}
	if c.bodies, err = p.bodies(); err != nil {
		return c, err
	}
	return c, p.expect("done")
}

var errEmptyCommand = errors.New("syntax error: command expected")

func (p *shellParser) simple() (command, error) {
	var c command
	for {
		p.blanks()
		if r, err := p.redirect(); err != nil {
			return c, err
		} else if r != nil {
			c.redirects = append(c.redirects, r)
			continue
		}
		if p.pos >= len(p.src) || p.operator(false) != "" {
			if p.operator(false) == "(" && len(c.words) == 1 {
				return c, fmt.Errorf("function: %w", errUnsupported)
			}
			if len(c.words) == 0 && len(c.redirects) == 0 {
				return c, errEmptyCommand
			}
			return c, nil
		}
		w, err := p.word()
		if err != nil {
			return c, err
		}
		c.words = append(c.words, w)
	}
}

// redirect takes a redirection, nil if there is none.
func (p *shellParser) redirect() (*redirect, error) {
	i := p.pos
	for i < len(p.src) && p.src[i] >= '0' && p.src[i] <= '9' {
		i++
	}
	rest := p.src[i:]
	if strings.HasPrefix(rest, "<(") || strings.HasPrefix(rest, ">(") {
		return nil, nil
	}
	for _, op := range []string{"&>>", "&>", "<<<", "<<-", "<<", ">>", ">&", "<&", ">|", ">", "<"} {
		if !strings.HasPrefix(rest, op) {
			continue
		}
		r := &redirect{op: op, fd: -1}
		if i > p.pos {
			r.fd, _ = strconv.Atoi(p.src[p.pos:i]) // digits only
		}
		p.pos = i + len(op)
		p.blanks()
		w, err := p.word()
		if err != nil {
			return nil, err
		}
		if w == "" {
			return nil, fmt.Errorf("syntax error near `%s'", op)
		}
		r.target = w
		if op == "<<" || op == "<<-" {
			r.target = strings.NewReplacer(`"`, "", "'", "", `\`, "").Replace(w)
			r.expand = r.target == w
			p.pending = append(p.pending, r)
		}
		return r, nil
	}
	return nil, nil
}

// word takes a word as it is written, with its quotes.
func (p *shellParser) word() (string, error) {
	p.blanks()
	start := p.pos
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; c {
		case '\\':
			p.pos = min(p.pos+2, len(p.src))
		case '\'', '"', '`':
			if err := p.quoted(c); err != nil {
				return "", err
			}
		case '$':
			p.pos++
			if err := p.dollar(); err != nil {
				return "", err
			}
		case '<', '>':
			if p.pos+1 < len(p.src) && p.src[p.pos+1] == '(' && p.pos == start {
				p.pos++
				if err := p.balanced('(', ')'); err != nil {
					return "", err
				}
				continue
			}
			return p.src[start:p.pos], nil
		case ' ', '\t', '\r', '\n', ';', '&', '|', '(', ')':
			return p.src[start:p.pos], nil
		default:
			p.pos++
		}
	}
	return p.src[start:p.pos], nil
}

// dollar skips what follows a $.
func (p *shellParser) dollar() error {
	if p.pos < len(p.src) {
		switch p.src[p.pos] {
		case '(':
			return p.balanced('(', ')')
		case '{':
			return p.balanced('{', '}')
		}
	}
	return nil
}

func (p *shellParser) quoted(quote byte) error {
	for p.pos++; p.pos < len(p.src); p.pos++ {
		switch c := p.src[p.pos]; {
		case c == quote:
			p.pos++
			return nil
		case c == '\\' && quote != '\'':
			p.pos++
		case c == '$' && quote == '"':
			p.pos++
			if err := p.dollar(); err != nil {
				return err
			}
			p.pos--
		}
	}
	return fmt.Errorf("unexpected EOF while looking for matching `%c'", quote)
}

func (p *shellParser) balanced(open, shut byte) error {
	depth := 0
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == '\\':
			p.pos++
		case c == '\'' || c == '"' || c == '`':
			if err := p.quoted(c); err != nil {
				return err
			}
			continue
		case c == open:
			depth++
		case c == shut:
			depth--
			if depth == 0 {
				p.pos++
				return nil
			}
		}
		p.pos++
	}
	return fmt.Errorf("unexpected EOF while looking for matching `%c'", shut)
}

// shell runs scripts in a stage. Without a stage it only expands variables, as in instructions other than RUN.
type shell struct {
	stage    *stage
	vars     map[string]string
	log      *bytes.Buffer // what the container prints
	errexit  bool
	pipefail bool
	xtrace   bool
	exited   bool
	status   int // of the last command
	depth    int
}

// run runs a script and returns its exit code.
func (s *shell) run(script string) int {
	seq, err := parseShell(script)
	switch {
	case errors.Is(err, errUnsupported):
		fmt.Fprintf(s.log, "# %v: taken to succeed\n", err)
		return 0
	case err != nil:
		fmt.Fprintf(s.log, "/bin/sh: -c: line 1: %v\n", err)
		return 2
	}
	return s.sequence(seq, "", s.log, false)
}

func (s *shell) sequence(seq sequence, in string, out *bytes.Buffer, condition bool) int {
	code := 0
	for _, a := range seq {
		var last bool
		code, last = s.andOr(a, in, out, condition)
		s.status = code
		if s.exited {
			return code
		}
		if negated := a.pipelines[len(a.pipelines)-1].negate; code != 0 && last && s.errexit && !condition && !negated {
			s.exited = true
			return code
		}
	}
	return code
}

// andOr returns the code and whether the last pipeline gave it: only then does set -e look at it.
func (s *shell) andOr(a andOr, in string, out *bytes.Buffer, condition bool) (int, bool) {
	code, last := 0, false
	for i, pl := range a.pipelines {
		if i > 0 && (a.operators[i-1] == "&&") != (code == 0) {
			continue
		}
		last = i == len(a.pipelines)-1
		code = s.pipeline(pl, in, out, condition || !last)
		s.status = code
		if s.exited {
			return code, last
		}
	}
	return code, last
}

func (s *shell) pipeline(pl pipeline, in string, out *bytes.Buffer, condition bool) int {
	code, fail := 0, 0
	for i, c := range pl.commands {
		to := out
		if i < len(pl.commands)-1 {
			to = &bytes.Buffer{}
		}
		code = s.command(c, in, to, condition || pl.negate)
		if len(pl.commands) > 1 {
			s.exited = false // each command of a pipeline has a shell of its own
		}
		if code != 0 {
			fail = code
		}
		if to != out {
			in = to.String()
		}
	}
	if s.pipefail && code == 0 {
		code = fail
	}
	if pl.negate {
		if code == 0 {
			return 1
		}
		return 0
	}
	return code
}

func (s *shell) command(c command, in string, out *bytes.Buffer, condition bool) int {
	to, finish, ok := out, func() int { return 0 }, true
	for _, r := range c.redirects {
		switch r.op {
		case "<<", "<<-":
			in = r.body
			if r.expand {
				in = s.expandText(in)
			}
		case "<<<":
			in = s.expandOne(r.target) + "\n"
		case "<":
			name := s.path(s.expandOne(r.target))
			if in, ok = s.stage.read(name); !ok {
				fmt.Fprintf(s.log, "/bin/sh: line 1: %s: No such file or directory\n", name)
				return 1
			}
		case ">", ">>", ">|", "&>", "&>>":
			if r.fd == 2 {
				continue // what goes to standard error is in the log anyway
			}
			name, add := s.path(s.expandOne(r.target)), strings.HasSuffix(r.op, ">>")
			to = &bytes.Buffer{}
			buffer := to
			finish = func() int {
				switch name {
				case "/dev/null":
				case "/dev/stdout", "/dev/stderr":
					s.log.Write(buffer.Bytes())
				default:
					s.stage.write(name, buffer.String(), add)
				}
				return 0
			}
		case ">&":
			if r.target == "2" {
				to = s.log
			}
		}
	}
	code := s.dispatch(c, in, to, condition)
	finish()
	return code
}

func (s *shell) dispatch(c command, in string, out *bytes.Buffer, condition bool) int {
	switch c.kind {
	case "{":
		return s.sequence(c.bodies[0], in, out, condition)
	case "(":
		saved, errexit := cloneMap(s.vars), s.errexit
		code := s.sequence(c.bodies[0], in, out, condition)
		s.vars, s.errexit, s.exited = saved, errexit, false
		return code
	case "while":
		fmt.Fprintln(s.log, "# loop: not interpreted, taken to end at once")
		return 0
	case "if":
		for i, cond := range c.conds {
			if code := s.sequence(cond, in, out, true); s.exited {
				return code
			} else if code == 0 {
				return s.sequence(c.bodies[i], in, out, condition)
			}
		}
		if len(c.bodies) > len(c.conds) {
			return s.sequence(c.bodies[len(c.conds)], in, out, condition)
		}
		return 0
	case "for":
		code := 0
		for _, w := range s.expand(c.words) {
			s.vars[c.name] = w
			if code = s.sequence(c.bodies[0], in, out, condition); s.exited {
				break
			}
		}
		return code
	}
	words := c.words
	var assigned []string
	for len(words) > 0 {
		name, value, ok := strings.Cut(words[0], "=")
		if !ok || !isName(name) {
			break
		}
		s.status = 0
		assigned = append(assigned, name, s.expandOne(value))
		words = words[1:]
	}
	args := s.expand(words)
	if len(args) == 0 {
		for i := 0; i < len(assigned); i += 2 {
			s.vars[assigned[i]] = assigned[i+1]
		}
		if len(assigned) > 0 {
			return s.status // of a command substitution, 0 otherwise
		}
		return 0
	}
	if len(assigned) > 0 {
		saved := s.vars
		s.vars = cloneMap(s.vars)
		for i := 0; i < len(assigned); i += 2 {
			s.vars[assigned[i]] = assigned[i+1]
		}
		defer func() { s.vars = saved }()
	}
	if s.xtrace {
		fmt.Fprintln(s.log, "+ "+strings.Join(args, " "))
	}
	return s.call(args, in, out)
}

func cloneMap(m map[string]string) map[string]string {
	c := make(map[string]string, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func isName(s string) bool {
	for i, r := range s {
		if r != '_' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsDigit(r)) {
			return false
		}
	}
	return s != ""
}

// path makes a file name absolute.
func (s *shell) path(name string) string {
	if !path.IsAbs(name) {
		name = path.Join(s.stage.workdir(), name)
	}
	return path.Clean(name)
}

// expand makes arguments of raw words.
func (s *shell) expand(words []string) []string {
	var args []string
	for _, w := range words {
		for _, b := range braces(w) {
			fields, glob := s.fields(b)
			for _, f := range fields {
				if glob && strings.ContainsAny(f, "*?[") {
					if names := s.stage.glob(s.path(f)); len(names) > 0 {
						args = append(args, names...)
						continue
					}
				}
				args = append(args, f)
			}
		}
	}
	return args
}

// expandOne expands a word that is not split.
func (s *shell) expandOne(raw string) string {
	return strings.Join(s.split(raw, false), " ")
}

func (s *shell) fields(raw string) ([]string, bool) {
	return s.split(raw, true), !strings.ContainsAny(raw, `'"\`)
}

// split expands variables and removes quotes. Unquoted expansions are split at white space when fields is set.
func (s *shell) split(raw string, fields bool) []string {
	var words []string
	var b strings.Builder
	some := false // there is a word even if it is empty
	emit := func() {
		if some || b.Len() > 0 {
			words = append(words, b.String())
		}
		b.Reset()
		some = false
	}
	unquoted := func(v string) {
		if !fields {
			b.WriteString(v)
			return
		}
		parts := strings.Fields(v)
		if len(parts) == 0 {
			return
		}
		if unicode.IsSpace(rune(v[0])) {
			emit()
		}
		for i, part := range parts {
			if i > 0 {
				emit()
			}
			b.WriteString(part)
		}
		if unicode.IsSpace(rune(v[len(v)-1])) {
			emit()
		}
	}
	for i := 0; i < len(raw); {
		switch c := raw[i]; c {
		case '\\':
			if i+1 < len(raw) && raw[i+1] != '\n' {
				b.WriteByte(raw[i+1])
			}
			i += 2
		case '\'':
			end := strings.IndexByte(raw[i+1:], '\'')
			if end < 0 {
				end = len(raw) - i - 1
			}
			b.WriteString(raw[i+1 : i+1+end])
			some, i = true, i+end+2
		case '"':
			p := &shellParser{src: raw, pos: i}
			if p.quoted('"') != nil {
				p.pos = len(raw) + 1
			}
			b.WriteString(s.expandText(raw[i+1 : p.pos-1]))
			some, i = true, p.pos
		case '$', '`':
			v, n := s.dollar(raw[i:])
			unquoted(v)
			i += n
		case '<', '>':
			p := &shellParser{src: raw, pos: i + 1}
			if p.pos < len(raw) && raw[p.pos] == '(' && p.balanced('(', ')') == nil {
				b.WriteString("/dev/fd/63")
				i = p.pos
				continue
			}
			b.WriteByte(c)
			i++
		default:
			b.WriteByte(c)
			i++
		}
	}
	emit()
	return words
}

// expandText expands variables as in double quotes.
func (s *shell) expandText(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && strings.IndexByte("$`\"\\\n", text[i+1]) >= 0:
			if text[i+1] != '\n' {
				b.WriteByte(text[i+1])
			}
			i += 2
		case c == '$' || c == '`':
			v, n := s.dollar(text[i:])
			b.WriteString(v)
			i += n
		default:
			b.WriteByte(c)
			i++
		}
	}
	return b.String()
}

// dollar expands what begins with $ or a back quote; it returns the value and how much it took.
func (s *shell) dollar(t string) (string, int) {
	if t[0] == '`' {
		if s.stage == nil {
			return "`", 1
		}
		if end := strings.IndexByte(t[1:], '`'); end >= 0 {
			return s.capture(t[1 : 1+end]), end + 2
		}
		return t, len(t)
	}
	if len(t) == 1 {
		return "$", 1
	}
	p := &shellParser{src: t, pos: 1}
	switch c := t[1]; {
	case c == '(':
		if p.balanced('(', ')') != nil {
			return t, len(t)
		}
		if s.stage == nil {
			return t[:p.pos], p.pos
		}
		if strings.HasPrefix(t, "$((") {
			return "0", p.pos // arithmetic is not interpreted
		}
		return s.capture(t[2 : p.pos-1]), p.pos
	case c == '{':
		if p.balanced('{', '}') != nil {
			return t, len(t)
		}
		return s.parameter(t[2 : p.pos-1]), p.pos
	case c == '?':
		return strconv.Itoa(s.status), 2
	case c == '@' || c == '*' || c == '#' || c == '$' || c == '!' || c == '-' || c >= '0' && c <= '9':
		return "", 2
	}
	n := 1
	for n < len(t) && isName(t[1:n+1]) {
		n++
	}
	if n == 1 {
		return "$", 1
	}
	return s.vars[t[1:n]], n
}

// parameter expands the inside of ${ }.
func (s *shell) parameter(t string) string {
	n := 0
	for n < len(t) && isName(t[:n+1]) {
		n++
	}
	value, set := s.vars[t[:n]]
	op, word := t[n:], ""
	for _, o := range []string{":-", ":+", ":=", "-", "+", "%%", "%", "##", "#"} {
		if rest, ok := strings.CutPrefix(op, o); ok {
			op, word = o, s.expandOne(rest)
			break
		}
	}
	switch op {
	case ":-", ":=":
		if value == "" {
			return word
		}
	case "-":
		if !set {
			return word
		}
	case ":+":
		if value != "" {
			return word
		}
		return ""
	case "+":
		if set {
			return word
		}
		return ""
	case "%", "%%":
		return strings.TrimSuffix(value, word)
	case "#", "##":
		return strings.TrimPrefix(value, word)
	}
	return value
}

// capture runs a command substitution.
func (s *shell) capture(script string) string {
	seq, err := parseShell(script)
	if err != nil || s.depth > 20 {
		s.status = 1
		return ""
	}
	sub := *s
	sub.vars, sub.depth = cloneMap(s.vars), s.depth+1
	var out bytes.Buffer
	s.status = sub.sequence(seq, "", &out, false)
	return strings.TrimRight(out.String(), "\n")
}

// braces expands {a,b} in a word without quotes.
func braces(w string) []string {
	if strings.ContainsAny(w, `'"\$`) {
		return []string{w}
	}
	open := strings.IndexByte(w, '{')
	if open < 0 {
		return []string{w}
	}
	depth, start := 0, open+1
	var parts []string
	for i := open; i < len(w); i++ {
		switch w[i] {
		case '{':
			depth++
		case ',':
			if depth == 1 {
				parts = append(parts, w[start:i])
				start = i + 1
			}
		case '}':
			depth--
			if depth > 0 {
				continue
			}
			if len(parts) == 0 {
				return []string{w}
			}
			parts = append(parts, w[start:i])
			var all []string
			for _, part := range parts {
				for _, tail := range braces(w[i+1:]) {
					all = append(all, braces(w[:open]+part+tail)...)
				}
			}
			return all
		}
	}
	return []string{w}
}
