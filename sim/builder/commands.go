package builder

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// call runs one command. Commands that it does not know succeed, with a line in the log that says so.
func (s *shell) call(args []string, in string, out *bytes.Buffer) int {
	name, rest := args[0], args[1:]
	switch path.Base(name) {
	case ":", "true":
		return 0
	case "false":
		return 1
	case "exit", "return":
		s.exited = true
		if len(rest) == 0 {
			return s.status
		}
		n, err := strconv.Atoi(rest[0])
		if err != nil {
			return 2
		}
		return n & 0xff
	case "set":
		return s.set(rest)
	case "cd", "pushd":
		if len(rest) > 0 {
			s.stage.config.WorkingDir = s.path(rest[0])
		}
		return 0
	case "popd", "shopt", "trap", "umask", "sync", "wait", "sleep", "hash", "ulimit":
		return 0
	case "export", "declare", "local", "readonly":
		for _, a := range rest {
			if k, v, ok := strings.Cut(a, "="); ok && isName(k) {
				s.vars[k] = v
			}
		}
		return 0
	case "unset":
		for _, a := range rest {
			delete(s.vars, a)
		}
		return 0
	case "exec", "sudo", "env", "command", "time", "nice", "eatmydata":
		return s.prefixed(path.Base(name), rest, in, out)
	case "eval":
		return s.nested(strings.Join(rest, " "))
	case "sh", "bash", "/bin/sh", "/bin/bash":
		return s.interpreter(rest, in)
	case "test":
		return s.test(rest)
	case "[", "[[":
		if len(rest) == 0 || rest[len(rest)-1] != "]" && rest[len(rest)-1] != "]]" {
			fmt.Fprintf(s.log, "/bin/sh: line 1: %s: missing `]'\n", name)
			return 2
		}
		return s.test(rest[:len(rest)-1])
	case "echo":
		return echo(rest, out)
	case "printf":
		return printf(rest, out)
	case "cat":
		return s.cat(rest, in, out)
	case "tee":
		return s.tee(rest, in, out)
	case "base64":
		if slices.Contains(rest, "-d") || slices.Contains(rest, "--decode") {
			b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s.input(rest, in)), ""))
			out.Write(b)
			return s.failed(name, err)
		}
		out.WriteString(base64.StdEncoding.EncodeToString([]byte(s.input(rest, in))) + "\n")
		return 0
	case "gunzip", "zcat":
		z, err := gzip.NewReader(strings.NewReader(s.input(rest, in)))
		if err == nil {
			_, err = io.Copy(out, z)
		}
		return s.failed(name, err)
	case "mkdir", "chmod", "chown", "chgrp", "restorecon", "chcon", "rmdir", "install":
		return 0
	case "touch":
		for _, a := range operands(rest) {
			s.stage.write(s.path(a), "", true)
		}
		return 0
	case "rm", "unlink":
		return s.remove(rest)
	case "cp", "mv":
		return s.copy(path.Base(name), rest)
	case "ln":
		if o := operands(rest); len(o) == 2 {
			s.stage.files[s.path(o[1])] = file{link: o[0], mode: 0o777}
		}
		return 0
	case "systemctl":
		return s.systemctl(rest, out)
	case "rpm":
		return s.rpm(rest, out)
	case "rpm-ostree":
		return s.rpmOSTree(rest, out)
	case "dnf", "dnf5", "yum", "microdnf":
		return s.dnf(path.Base(name), rest, out)
	case "ostree":
		if len(rest) >= 2 && rest[0] == "container" && rest[1] == "commit" {
			s.stage.clean()
			return 0
		}
	case "bootc":
		if len(rest) >= 2 && rest[0] == "container" && rest[1] == "lint" {
			fmt.Fprintln(out, "Checks passed: 9")
			return 0
		}
	}
	fmt.Fprintf(s.log, "# %s: not modelled, taken to succeed\n", name)
	return 0
}

func (s *shell) failed(name string, err error) int {
	if err != nil {
		fmt.Fprintf(s.log, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// operands are the arguments that are not flags.
func operands(args []string) []string {
	var o []string
	for i, a := range args {
		if a == "--" {
			return append(o, args[i+1:]...)
		}
		if !strings.HasPrefix(a, "-") || a == "-" {
			o = append(o, a)
		}
	}
	return o
}

func (s *shell) set(args []string) int {
	for i, a := range args {
		on := strings.HasPrefix(a, "-")
		if !on && !strings.HasPrefix(a, "+") {
			continue
		}
		for _, f := range a[1:] {
			switch f {
			case 'e':
				s.errexit = on
			case 'x':
				s.xtrace = on
			case 'o':
				if i+1 < len(args) && args[i+1] == "pipefail" {
					s.pipefail = on
				}
				if i+1 < len(args) && args[i+1] == "errexit" {
					s.errexit = on
				}
			}
		}
	}
	return 0
}

// prefixed runs the command that follows exec, sudo, env and the like.
func (s *shell) prefixed(name string, args []string, in string, out *bytes.Buffer) int {
	for len(args) > 0 {
		a := args[0]
		switch {
		case name == "command" && (a == "-v" || a == "-V"):
			return 0 // every command is there
		case name == "exec" && a == "-a" || name == "sudo" && a == "-u" || name == "nice" && a == "-n":
			args = args[min(2, len(args)):]
			continue
		case strings.HasPrefix(a, "-"):
		case name == "env" && strings.Contains(a, "="):
			k, v, _ := strings.Cut(a, "=")
			s.vars[k] = v
		default:
			code := s.call(args, in, out)
			if name == "exec" {
				s.exited = true
			}
			return code
		}
		args = args[1:]
	}
	return 0
}

// nested runs a script in this shell.
func (s *shell) nested(script string) int {
	if s.depth > 20 {
		return 1
	}
	s.depth++
	defer func() { s.depth-- }()
	return s.run(script)
}

// interpreter runs sh -c SCRIPT, sh FILE, or a script on standard input.
func (s *shell) interpreter(args []string, in string) int {
	sub := *s
	sub.vars, sub.exited, sub.errexit, sub.pipefail, sub.xtrace = cloneMap(s.vars), false, false, false, false
	script, fromFlag := in, false
	for i, a := range args {
		if strings.HasPrefix(a, "-") {
			sub.set([]string{strings.ReplaceAll(a, "c", "")})
			fromFlag = fromFlag || strings.Contains(a, "c")
			continue
		}
		if fromFlag {
			script = a
		} else if text, ok := s.stage.read(s.path(args[i])); ok {
			script = text
		} else {
			fmt.Fprintf(s.log, "# %s: not modelled, taken to succeed\n", a)
			return 0
		}
		break
	}
	return sub.nested(script)
}

func (s *shell) test(args []string) int {
	truth := func(b bool) int {
		if b {
			return 0
		}
		return 1
	}
	for i, a := range args { // or binds weaker than and
		if a == "-o" || a == "||" {
			return truth(s.test(args[:i]) == 0 || s.test(args[i+1:]) == 0)
		}
	}
	for i, a := range args {
		if a == "-a" && i > 0 || a == "&&" {
			return truth(s.test(args[:i]) == 0 && s.test(args[i+1:]) == 0)
		}
	}
	if len(args) > 0 && args[0] == "!" {
		return truth(s.test(args[1:]) != 0)
	}
	switch len(args) {
	case 1:
		return truth(args[0] != "")
	case 2:
		name := s.path(args[1])
		switch args[0] {
		case "-z":
			return truth(args[1] == "")
		case "-n":
			return truth(args[1] != "")
		case "-e", "-f", "-r", "-w", "-s":
			f, ok := s.stage.files[name]
			return truth(ok && !f.removed && (args[0] != "-s" || len(f.data) > 0))
		case "-L", "-h":
			return truth(s.stage.files[name].link != "")
		case "-x":
			return truth(s.stage.files[name].mode&0o111 != 0)
		case "-d":
			return truth(s.stage.isDir(name))
		}
	case 3:
		a, errA := strconv.Atoi(args[0])
		b, errB := strconv.Atoi(args[2])
		numbers := errA == nil && errB == nil
		switch args[1] {
		case "=", "==":
			matched, err := path.Match(args[2], args[0])
			return truth(args[0] == args[2] || matched && err == nil)
		case "!=":
			return truth(args[0] != args[2])
		case "-eq":
			return truth(numbers && a == b)
		case "-ne":
			return truth(numbers && a != b)
		case "-gt":
			return truth(numbers && a > b)
		case "-ge":
			return truth(numbers && a >= b)
		case "-lt":
			return truth(numbers && a < b)
		case "-le":
			return truth(numbers && a <= b)
		}
	}
	return 1
}

var escapes = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\\`, `\`, `\r`, "\r")

func echo(args []string, out *bytes.Buffer) int {
	newline, interpret := "\n", false
	for len(args) > 0 && (args[0] == "-e" || args[0] == "-n" || args[0] == "-ne" || args[0] == "-en") {
		interpret = interpret || strings.Contains(args[0], "e")
		if strings.Contains(args[0], "n") {
			newline = ""
		}
		args = args[1:]
	}
	text := strings.Join(args, " ")
	if interpret {
		text = escapes.Replace(text)
	}
	out.WriteString(text + newline)
	return 0
}

// printf fills %s, %d and %% and repeats the format while there are arguments.
func printf(args []string, out *bytes.Buffer) int {
	if len(args) == 0 {
		return 2
	}
	format, rest := escapes.Replace(args[0]), args[1:]
	for {
		before := len(rest)
		for i := 0; i < len(format); i++ {
			if format[i] != '%' || i+1 == len(format) {
				out.WriteByte(format[i])
				continue
			}
			i++
			switch format[i] {
			case 's', 'd', 'b', 'q':
				if len(rest) > 0 {
					out.WriteString(rest[0])
					rest = rest[1:]
				}
			default:
				out.WriteByte(format[i])
			}
		}
		if len(rest) == 0 || len(rest) == before {
			return 0
		}
	}
}

// input is the text of the first file operand, or standard input.
func (s *shell) input(args []string, in string) string {
	for _, a := range operands(args) {
		if text, ok := s.stage.read(s.path(a)); ok && a != "-" {
			return text
		}
	}
	return in
}

func (s *shell) cat(args []string, in string, out *bytes.Buffer) int {
	names := operands(args)
	if len(names) == 0 {
		names = []string{"-"}
	}
	code := 0
	for _, n := range names {
		if n == "-" {
			out.WriteString(in)
			continue
		}
		text, ok := s.stage.read(s.path(n))
		if !ok {
			fmt.Fprintf(s.log, "cat: %s: No such file or directory\n", n)
			code = 1
		}
		out.WriteString(text)
	}
	return code
}

func (s *shell) tee(args []string, in string, out *bytes.Buffer) int {
	for _, n := range operands(args) {
		s.stage.write(s.path(n), in, slices.Contains(args, "-a"))
	}
	out.WriteString(in)
	return 0
}

func (s *shell) remove(args []string) int {
	code := 0
	for _, a := range operands(args) {
		if !s.stage.remove(s.path(a)) && !slices.ContainsFunc(args, func(f string) bool {
			return strings.HasPrefix(f, "-") && (strings.Contains(f, "f") || strings.Contains(f, "r"))
		}) {
			fmt.Fprintf(s.log, "rm: cannot remove '%s': No such file or directory\n", a)
			code = 1
		}
	}
	return code
}

func (s *shell) copy(name string, args []string) int {
	o := operands(args)
	if len(o) < 2 {
		fmt.Fprintf(s.log, "%s: missing file operand\n", name)
		return 1
	}
	to, dir := s.path(o[len(o)-1]), len(o) > 2 || strings.HasSuffix(o[len(o)-1], "/") || s.stage.isDir(s.path(o[len(o)-1]))
	for _, a := range o[:len(o)-1] {
		from, target := s.path(a), to
		if dir {
			target = path.Join(to, path.Base(from))
		}
		found := false
		for _, n := range s.stage.below(from) {
			s.stage.files[path.Clean(target+strings.TrimPrefix(n, from))] = s.stage.files[n]
			found = true
		}
		if !found {
			// Most files of a real image are not in its model, so that a copy of one can't be an error.
			fmt.Fprintf(s.log, "# %s %s: the file is not modelled, taken to succeed\n", name, a)
			s.stage.write(target, "", false)
		}
		if name == "mv" {
			s.stage.remove(from)
		}
	}
	return 0
}

func (s *shell) systemctl(args []string, out *bytes.Buffer) int {
	o := operands(args)
	if len(o) < 2 {
		return 0
	}
	for _, unit := range o[1:] {
		if !strings.Contains(unit, ".") {
			unit += ".service"
		}
		wants := "/etc/systemd/system/multi-user.target.wants/" + unit
		switch o[0] {
		case "enable", "reenable":
			target := "/usr/lib/systemd/system/" + unit
			s.stage.files[wants] = file{link: target, mode: 0o777}
			fmt.Fprintf(out, "Created symlink %s → %s.\n", wants, target)
		case "disable":
			if s.stage.remove(wants) {
				fmt.Fprintf(out, "Removed \"%s\".\n", wants)
			}
		case "mask":
			s.stage.files["/etc/systemd/system/"+unit] = file{link: "/dev/null", mode: 0o777}
			fmt.Fprintf(out, "Created symlink /etc/systemd/system/%s → /dev/null.\n", unit)
		case "unmask":
			s.stage.remove("/etc/systemd/system/" + unit)
		}
	}
	return 0
}

func (s *shell) rpm(args []string, out *bytes.Buffer) int {
	if len(args) == 0 {
		return 1
	}
	switch {
	case strings.HasPrefix(args[0], "-q") && strings.Contains(args[0], "a"):
		for _, p := range s.stage.sorted() {
			fmt.Fprintln(out, p.NVRA())
		}
		return 0
	case strings.HasPrefix(args[0], "-q"), args[0] == "--query":
		code := 0
		for _, w := range operands(args[1:]) {
			i := slices.IndexFunc(s.stage.sorted(), func(p Package) bool { return p.names(w) })
			if i < 0 {
				fmt.Fprintf(out, "package %s is not installed\n", w)
				code = 1
				continue
			}
			fmt.Fprintln(out, s.stage.sorted()[i].NVRA())
		}
		return code
	case strings.HasPrefix(args[0], "-i"), strings.HasPrefix(args[0], "-U"):
		for _, w := range operands(args[1:]) {
			if p, ok := rpmFile(w); ok {
				s.stage.packages[p.Name] = p
				s.stage.changed = append(s.stage.changed, p)
			}
		}
		return 0
	case args[0] == "-e":
		for _, w := range operands(args[1:]) {
			if s.stage.erase(w) == nil {
				fmt.Fprintf(s.log, "error: package %s is not installed\n", w)
				return 1
			}
		}
		return 0
	}
	return 0 // --import and the like
}

// rpmFile makes a package of the name of an RPM file or of its URL: name-version-release.arch.rpm.
func rpmFile(word string) (Package, bool) {
	base, ok := strings.CutSuffix(path.Base(word), ".rpm")
	if !ok {
		return Package{}, false
	}
	p := Package{Name: base, EVR: "0-0", Arch: "x86_64"}
	if i := strings.LastIndexByte(base, '.'); i > 0 {
		p.Name, p.Arch = base[:i], base[i+1:]
	}
	if i := strings.LastIndexByte(p.Name, '-'); i > 0 {
		if j := strings.LastIndexByte(p.Name[:i], '-'); j > 0 {
			p.Name, p.EVR = p.Name[:j], p.Name[j+1:]
		}
	}
	return p, true
}

// transaction is what a package manager's command comes to.
type transaction struct {
	install []found
	missing []string
	active  []Repository // those that were asked
	down    *Repository  // the first one that can't be reached
}

type found struct {
	Package
	repository string
}

// resolve looks words up in the repositories, with what the packages require.
func (s *shell) resolve(words, enable, disable []string) transaction {
	var t transaction
	for _, r := range s.stage.repositories.List() {
		on := !r.Disabled
		for _, pattern := range disable {
			if ok, err := path.Match(pattern, r.ID); ok && err == nil {
				on = false
			}
		}
		for _, pattern := range enable {
			if ok, err := path.Match(pattern, r.ID); ok && err == nil {
				on = true
			}
		}
		if on {
			t.active = append(t.active, r)
		}
	}
	for i := range t.active {
		if t.active[i].Unreachable {
			t.down = &t.active[i]
			return t
		}
	}
	seen := map[string]bool{}
	var add func(word string) bool
	add = func(word string) bool {
		if p, ok := rpmFile(word); ok {
			if !seen[p.Name] {
				seen[p.Name] = true
				t.install = append(t.install, found{p, "@commandline"})
			}
			return true
		}
		if p, ok := s.stage.packages[word]; ok && p.Name == word {
			return true
		}
		for _, r := range t.active {
			for _, p := range r.Packages {
				if !p.names(word) {
					continue
				}
				if old, ok := s.stage.packages[p.Name]; ok && old.EVR == p.EVR || seen[p.Name] {
					return true
				}
				seen[p.Name] = true
				for _, q := range p.Requires {
					add(q)
				}
				t.install = append(t.install, found{p, r.ID})
				return true
			}
		}
		return false
	}
	for _, w := range words {
		if !add(w) {
			t.missing = append(t.missing, w)
		}
	}
	slices.SortFunc(t.install, func(a, b found) int { return strings.Compare(a.Name, b.Name) })
	return t
}

func (s *shell) apply(t transaction) {
	for _, p := range t.install {
		s.stage.packages[p.Name] = p.Package
		s.stage.changed = append(s.stage.changed, p.Package)
	}
}

func bytesText(n int64) string {
	switch {
	case n >= 1_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}

func (p Package) size() int64 {
	if p.Size > 0 {
		return p.Size
	}
	return defaultPackageSize
}

// rpmOSTree is rpm-ostree in a container build.
func (s *shell) rpmOSTree(args []string, out *bytes.Buffer) int {
	verb, rest := "", []string(nil)
	if len(args) > 0 {
		verb, rest = args[0], args[1:]
	}
	if verb == "override" && len(rest) > 0 {
		verb, rest = "override "+rest[0], rest[1:]
	}
	var words, install, remove, enable, disable []string
	for i := 0; i < len(rest); i++ {
		flag, value, hasValue := strings.Cut(rest[i], "=")
		if !strings.HasPrefix(flag, "-") {
			words = append(words, rest[i])
			continue
		}
		into := map[string]*[]string{
			"--install": &install, "--uninstall": &remove, "--remove": &remove, "--enablerepo": &enable, "--disablerepo": &disable,
			"--from": new([]string), "--releasever": new([]string), "--ex-treefile": new([]string),
		}[flag]
		if into == nil {
			continue
		}
		if !hasValue && i+1 < len(rest) {
			i++
			value = rest[i]
		}
		*into = append(*into, value)
	}
	switch verb {
	case "install", "override replace":
		install = append(install, words...)
	case "remove", "uninstall", "override remove":
		remove = append(remove, words...)
	case "refresh-md", "makecache":
	case "cleanup", "cliwrap", "status", "--version", "initramfs-etc", "initramfs", "kargs", "override reset", "ex":
		return 0
	case "":
		fmt.Fprintln(s.log, "error: No command specified")
		return 1
	default:
		fmt.Fprintf(s.log, "# rpm-ostree %s: not modelled, taken to succeed\n", verb)
		return 0
	}
	if len(install)+len(remove) == 0 && verb != "refresh-md" && verb != "makecache" {
		fmt.Fprintf(s.log, "error: At least one PACKAGE must be specified\n")
		return 1
	}
	var gone []Package
	for _, w := range remove {
		if slices.ContainsFunc(s.stage.sorted(), func(p Package) bool { return p.names(w) }) {
			continue
		}
		fmt.Fprintf(s.log, "error: Package/capability '%s' is not currently requested\n", w)
		return 1
	}
	var t transaction
	if len(install) > 0 || verb == "refresh-md" || verb == "makecache" {
		t = s.resolve(install, enable, disable)
		if t.down != nil {
			host := strings.TrimPrefix(strings.TrimPrefix(t.down.URL, "https://"), "http://")
			host, _, _ = strings.Cut(host, "/")
			fmt.Fprintf(s.log, "error: Updating rpm-md repo '%s': cannot update repo '%s': Cannot download repomd.xml: Cannot download "+
				"repodata/repomd.xml: All mirrors were tried; Last error: Curl error (6): Could not resolve hostname for "+
				"%s/repodata/repomd.xml [Could not resolve host: %s]\n", t.down.ID, t.down.ID, t.down.URL, host)
			return 1
		}
		for _, r := range t.active {
			fmt.Fprintf(out, "Updating metadata for '%s'...done\n", r.ID)
		}
		fmt.Fprintln(out, "Importing rpm-md...done")
		if len(t.missing) > 0 {
			fmt.Fprintf(s.log, "error: Packages not found: %s\n", strings.Join(t.missing, ", "))
			return 1
		}
		fmt.Fprintln(out, "Resolving dependencies...done")
	}
	for _, w := range remove {
		if p := s.stage.erase(w); p != nil {
			gone = append(gone, *p)
		}
	}
	if len(gone) > 0 {
		fmt.Fprintf(out, "Removing %d packages:\n", len(gone))
		for _, p := range gone {
			fmt.Fprintf(out, "  %s\n", p.NEVRA())
		}
	}
	if len(t.install) > 0 {
		var sum int64
		for _, p := range t.install {
			sum += p.size()
		}
		fmt.Fprintf(out, "Will download: %d packages (%s)\n", len(t.install), bytesText(sum))
		fmt.Fprintf(out, "Installing %d packages:\n", len(t.install))
		for _, p := range t.install {
			fmt.Fprintf(out, "  %s (%s)\n", p.NEVRA(), p.repository)
		}
		s.apply(t)
	}
	return 0
}

// dnf is dnf, yum and microdnf.
func (s *shell) dnf(tool string, args []string, out *bytes.Buffer) int {
	var words, enable, disable []string
	yes := false
	for i := 0; i < len(args); i++ {
		flag, value, hasValue := strings.Cut(args[i], "=")
		if !strings.HasPrefix(flag, "-") {
			words = append(words, args[i])
			continue
		}
		next := func() string {
			if !hasValue && i+1 < len(args) {
				i++
				return args[i]
			}
			return value
		}
		switch flag {
		case "-y", "--assumeyes", "-qy", "-yq":
			yes = true
		case "--enablerepo":
			enable = append(enable, strings.Split(next(), ",")...)
		case "--disablerepo":
			disable = append(disable, strings.Split(next(), ",")...)
		case "--repo", "--repoid":
			disable, enable = append(disable, "*"), append(enable, strings.Split(next(), ",")...)
		case "--installroot", "--releasever", "--setopt", "-x", "--exclude", "-c", "--config", "--forcearch":
			next()
		}
	}
	if len(words) == 0 {
		return 0
	}
	verb, words := words[0], words[1:]
	var remove []string
	switch verb {
	case "install", "reinstall", "localinstall", "in":
	case "swap":
		if len(words) != 2 {
			return 1
		}
		remove, words = words[:1], words[1:]
	case "remove", "erase", "autoremove", "rm":
		remove, words = words, nil
	case "makecache", "check-update", "update", "upgrade":
		words = nil
	case "clean", "config-manager", "module", "list", "info", "repolist", "copr", "mark", "search", "download":
		fmt.Fprintf(s.log, "# %s %s: not modelled, taken to succeed\n", tool, verb)
		return 0
	case "groupinstall", "group":
		fmt.Fprintf(s.log, "Error: Nothing to do.\n")
		return 1
	default:
		fmt.Fprintf(s.log, "No such command: %s. Please use /usr/bin/%s --help\n", verb, tool)
		return 1
	}
	var t transaction
	if len(remove) == 0 || len(words) > 0 {
		t = s.resolve(words, enable, disable)
		if t.down != nil {
			fmt.Fprintf(s.log, "Errors during downloading metadata for repository '%s':\n  - Curl error (6): Couldn't resolve host name for "+
				"%s/repodata/repomd.xml\nError: Failed to download metadata for repo '%s': Cannot download repomd.xml: Cannot download "+
				"repodata/repomd.xml: All mirrors were tried\n", t.down.ID, t.down.URL, t.down.ID)
			return 1
		}
		if len(t.missing) > 0 {
			for _, w := range t.missing {
				fmt.Fprintf(s.log, "No match for argument: %s\n", w)
			}
			fmt.Fprintf(s.log, "Error: Unable to find a match: %s\n", strings.Join(t.missing, " "))
			return 1
		}
	}
	var removing []string
	for _, w := range remove {
		if !slices.ContainsFunc(s.stage.sorted(), func(p Package) bool { return p.names(w) }) {
			fmt.Fprintf(s.log, "No match for argument: %s\n", w)
			continue
		}
		removing = append(removing, w)
	}
	if len(t.install)+len(removing) == 0 {
		fmt.Fprintln(out, "Dependencies resolved.\nNothing to do.\nComplete!")
		return 0
	}
	fmt.Fprintln(out, "Dependencies resolved.")
	if !yes {
		fmt.Fprintln(s.log, "Is this ok [y/N]: Operation aborted.")
		return 1
	}
	for _, w := range removing {
		if p := s.stage.erase(w); p != nil {
			fmt.Fprintf(out, "Removing:  %s\n", p.NEVRA())
		}
	}
	for _, p := range t.install {
		fmt.Fprintf(out, "Installing:  %s (%s)\n", p.NEVRA(), p.repository)
	}
	s.apply(t)
	fmt.Fprintln(out, "Complete!")
	return 0
}

// stage's files.

func (st *stage) workdir() string {
	if st.config.WorkingDir == "" {
		return "/"
	}
	return st.config.WorkingDir
}

func (st *stage) read(name string) (string, bool) {
	f, ok := st.files[name]
	for hops := 0; ok && f.link != "" && hops < 8; hops++ {
		target := f.link
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		name = target
		f, ok = st.files[name]
	}
	return string(f.data), ok && !f.removed
}

func (st *stage) write(name, text string, add bool) {
	old := st.files[name]
	if old.link != "" || old.removed {
		old = file{}
	}
	if old.mode == 0 {
		old.mode = 0o644
	}
	if add {
		text = string(old.data) + text
	}
	old.data = []byte(text)
	st.files[name] = old
}

// below lists a file, or the files of a directory, sorted.
func (st *stage) below(name string) []string {
	var names []string
	for _, n := range slices.Sorted(maps.Keys(st.files)) {
		if (n == name || strings.HasPrefix(n, strings.TrimSuffix(name, "/")+"/")) && !st.files[n].removed {
			names = append(names, n)
		}
	}
	return names
}

func (st *stage) isDir(name string) bool {
	names := st.below(name)
	return len(names) > 0 && names[0] != name || slices.Contains([]string{"/", "/etc", "/usr", "/usr/bin", "/var", "/tmp", "/opt"}, name)
}

func (st *stage) remove(name string) bool {
	names := st.below(name)
	for _, n := range names {
		if _, ok := st.base[n]; ok {
			st.files[n] = file{removed: true}
			continue
		}
		delete(st.files, n)
	}
	return len(names) > 0
}

func (st *stage) glob(pattern string) []string {
	var names []string
	for _, n := range slices.Sorted(maps.Keys(st.files)) {
		// A pattern may mean a directory that is there only as a part of names.
		for p := n; p != "/" && p != "."; p = path.Dir(p) {
			if ok, err := path.Match(pattern, p); ok && err == nil && !st.files[n].removed && !slices.Contains(names, p) {
				names = append(names, p)
			}
		}
	}
	slices.Sort(names)
	return names
}

// clean removes what ostree container commit removes.
func (st *stage) clean() {
	for _, dir := range []string{"/run", "/tmp", "/var/cache", "/var/log", "/var/tmp"} {
		st.remove(dir)
	}
}

func (st *stage) sorted() []Package {
	list := make([]Package, 0, len(st.packages))
	for _, name := range slices.Sorted(maps.Keys(st.packages)) {
		list = append(list, st.packages[name])
	}
	sortPackages(list)
	return list
}

func (st *stage) erase(word string) *Package {
	for _, p := range st.sorted() {
		if p.names(word) {
			delete(st.packages, p.Name)
			st.changed = append(st.changed, p)
			return &p
		}
	}
	return nil
}
