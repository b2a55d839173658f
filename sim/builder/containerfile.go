package builder

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/openshift/imagebuilder/dockerfile/parser"
)

// plan is a Containerfile taken apart.
type plan struct {
	stages []*stagePlan
	// images are the images to pull, in the order in which they are needed first.
	images []string
}

type stagePlan struct {
	index  int
	name   string // as given after AS
	from   string // image or stage, expanded
	parent int    // the stage that it starts from, or -1
	steps  []*parser.Node
	args   map[string]string // ARGs before the first FROM
	needed bool
}

// parseContainerfile finds the stages that the last one needs. Stages that nothing needs are not built, nor are their
// images pulled, as with buildah.
func parseContainerfile(text string) (*plan, error) {
	result, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("parsing Containerfile: %w", err)
	}
	p := &plan{}
	global := map[string]string{}
	for _, n := range result.AST.Children {
		switch {
		case strings.EqualFold(n.Value, "from"):
			s := &stagePlan{index: len(p.stages), parent: -1, steps: []*parser.Node{n}, args: maps.Clone(global)}
			words := chain(n)
			if len(words) == 0 {
				return nil, errors.New("parsing Containerfile: FROM requires either one or three arguments")
			}
			s.from = (&shell{vars: global}).expandOne(words[0])
			if len(words) == 3 && strings.EqualFold(words[1], "as") {
				s.name = words[2]
			} else if len(words) != 1 {
				return nil, errors.New("parsing Containerfile: FROM requires either one or three arguments")
			}
			if s.from == "" {
				return nil, errors.New("parsing Containerfile: base name is empty")
			}
			s.parent = p.stage(s.from)
			p.stages = append(p.stages, s)
		case len(p.stages) > 0:
			last := p.stages[len(p.stages)-1]
			last.steps = append(last.steps, n)
		case strings.EqualFold(n.Value, "arg"):
			for _, w := range chain(n) {
				k, v, _ := strings.Cut(w, "=")
				global[k] = (&shell{vars: global}).expandOne(v)
			}
		default:
			return nil, fmt.Errorf("parsing Containerfile: no FROM statement found before %s", strings.ToUpper(n.Value))
		}
	}
	if len(p.stages) == 0 {
		return nil, errors.New("parsing Containerfile: no FROM statement found")
	}
	p.need(len(p.stages) - 1)
	for _, s := range p.stages {
		if s.needed {
			for _, ref := range s.images(p) {
				if !slices.Contains(p.images, ref) {
					p.images = append(p.images, ref)
				}
			}
		}
	}
	return p, nil
}

// stage finds a stage by name; -1 means that there is none.
func (p *plan) stage(name string) int {
	for _, s := range slices.Backward(p.stages) {
		if s.name != "" && strings.EqualFold(s.name, name) {
			return s.index
		}
	}
	return -1
}

func (p *plan) need(i int) {
	s := p.stages[i]
	if s.needed {
		return
	}
	s.needed = true
	if s.parent >= 0 {
		p.need(s.parent)
	}
	for _, n := range s.steps {
		if from := source(n); from != "" {
			if j := p.lookup(from, i); j >= 0 {
				p.need(j)
			}
		}
	}
}

// lookup finds an earlier stage by name or number.
func (p *plan) lookup(name string, before int) int {
	for _, s := range slices.Backward(p.stages[:before]) {
		if s.name != "" && strings.EqualFold(s.name, name) {
			return s.index
		}
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < before {
		return n
	}
	return -1
}

// images lists the images that a stage pulls.
func (s *stagePlan) images(p *plan) []string {
	var refs []string
	if s.parent < 0 && s.from != "scratch" {
		refs = append(refs, s.from)
	}
	for _, n := range s.steps {
		if from := source(n); from != "" && p.lookup(from, s.index) < 0 {
			refs = append(refs, from)
		}
	}
	return refs
}

// source is the stage or image of COPY --from or RUN --mount=from.
func source(n *parser.Node) string {
	for _, f := range n.Flags {
		if from, ok := strings.CutPrefix(f, "--from="); ok {
			return from
		}
		if mount, ok := strings.CutPrefix(f, "--mount="); ok {
			for _, option := range strings.Split(mount, ",") {
				if from, ok := strings.CutPrefix(option, "from="); ok {
					return from
				}
			}
		}
	}
	return ""
}

// chain lists the words of an instruction.
func chain(n *parser.Node) []string {
	var words []string
	for w := n.Next; w != nil; w = w.Next {
		words = append(words, w.Value)
	}
	return words
}

// stage is the state of a stage while it is built.
type stage struct {
	image        v1.Image        // the image that it started from
	base         map[string]file // that image's files
	files        map[string]file // the files now
	packages     map[string]Package
	changed      []Package // packages put in and taken out
	config       v1.Config
	env          map[string]string // ENV and ARG
	repositories *Repositories
}

// execution builds a plan.
type execution struct {
	plan         *plan
	images       map[string]v1.Image
	context      func(name string) ([]byte, bool) // the build context
	repositories *Repositories
	log          *bytes.Buffer
	stages       []*stage
}

// result is what a build gives.
type result struct {
	stage   *stage
	changes int // packages put in and taken out, in all stages
}

// errStep is a step that failed; its text is buildah's last line.
type errStep struct {
	step string
	err  error
}

func (e errStep) Error() string { return fmt.Sprintf("building at STEP %q: %v", e.step, e.err) }

// run builds the stages that are needed. An error is a failed build; its log ends as buildah's does.
func (e *execution) run() (result, error) {
	e.stages = make([]*stage, len(e.plan.stages))
	var r result
	for _, sp := range e.plan.stages {
		if !sp.needed {
			continue
		}
		st, err := e.start(sp)
		if err != nil {
			return r, err
		}
		e.stages[sp.index] = st
		for i, n := range sp.steps {
			prefix := ""
			if len(e.plan.stages) > 1 {
				prefix = fmt.Sprintf("[%d/%d] ", sp.index+1, len(e.plan.stages))
			}
			fmt.Fprintf(e.log, "%sSTEP %d/%d: %s\n", prefix, i+1, len(sp.steps), strings.TrimSpace(n.Original))
			if i == 0 {
				continue
			}
			before := len(st.changed)
			if err := e.step(sp, st, n); err != nil {
				return r, errStep{strings.TrimSpace(n.Original), err}
			}
			r.changes += len(st.changed) - before
		}
		r.stage = st
	}
	return r, nil
}

// start makes the state at FROM.
func (e *execution) start(sp *stagePlan) (*stage, error) {
	if sp.parent >= 0 {
		parent := e.stages[sp.parent]
		st := *parent
		st.files, st.packages, st.env = maps.Clone(parent.files), maps.Clone(parent.packages), maps.Clone(parent.env)
		st.changed = slices.Clone(parent.changed)
		st.config = *parent.config.DeepCopy()
		return &st, nil
	}
	st := &stage{
		image: mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON),
		base:  map[string]file{}, env: map[string]string{}, packages: map[string]Package{}, repositories: e.repositories,
	}
	if sp.from != "scratch" {
		st.image = e.images[sp.from]
	}
	if err := st.load(); err != nil {
		return nil, fmt.Errorf("creating build container: %w", err)
	}
	return st, nil
}

// load reads the image's files, packages and config.
func (st *stage) load() error {
	config, err := st.image.ConfigFile()
	if err != nil {
		return fmt.Errorf("reading config: %w", err)
	}
	st.config = *config.Config.DeepCopy()
	for _, kv := range st.config.Env {
		k, v, _ := strings.Cut(kv, "=")
		st.env[k] = v
	}
	files, err := imageFiles(st.image)
	if err != nil {
		return err
	}
	st.base, st.files = files, maps.Clone(files)
	list, err := Packages(st.image)
	if err != nil {
		return err
	}
	for _, p := range list {
		st.packages[p.Name] = p
	}
	return nil
}

// imageFiles reads all layers, lowest first.
func imageFiles(img v1.Image) (map[string]file, error) {
	files := map[string]file{}
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("reading layers: %w", err)
	}
	for _, l := range layers {
		if err := layerFiles(l, func(name string, f file) bool {
			if f.removed {
				delete(files, name)
			} else {
				files[name] = f
			}
			return true
		}); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// shell returns a shell with the stage's variables.
func (e *execution) shell(st *stage) *shell {
	return &shell{stage: st, vars: cloneMap(st.env), log: e.log}
}

func (e *execution) step(sp *stagePlan, st *stage, n *parser.Node) error {
	sh := e.shell(st)
	words := chain(n)
	one := (&shell{vars: st.env}).expandOne
	switch strings.ToLower(n.Value) {
	case "run":
		return e.runStep(sp, st, n)
	case "copy", "add":
		return e.copyStep(sp, st, n)
	case "arg":
		for _, w := range words {
			k, v, ok := strings.Cut(w, "=")
			if g, global := sp.args[k]; !ok && global {
				v, ok = g, true
			}
			if _, set := st.env[k]; ok && !set {
				st.env[k] = one(v)
			}
		}
	case "env", "label":
		for i := 0; i+1 < len(words); i += 2 {
			k, v := one(words[i]), one(words[i+1])
			if strings.EqualFold(n.Value, "label") {
				if st.config.Labels == nil {
					st.config.Labels = map[string]string{}
				}
				st.config.Labels[k] = v
				continue
			}
			st.env[k] = v
			st.config.Env = append(slices.DeleteFunc(st.config.Env, func(kv string) bool { return strings.HasPrefix(kv, k+"=") }), k+"="+v)
		}
	case "user":
		st.config.User = one(strings.Join(words, " "))
	case "workdir":
		st.config.WorkingDir = sh.path(one(strings.Join(words, " ")))
	case "cmd":
		st.config.Cmd = execForm(n, words)
	case "entrypoint":
		st.config.Entrypoint = execForm(n, words)
	case "expose":
		for _, w := range words {
			if st.config.ExposedPorts == nil {
				st.config.ExposedPorts = map[string]struct{}{}
			}
			st.config.ExposedPorts[one(w)] = struct{}{}
		}
	case "volume":
		for _, w := range words {
			if st.config.Volumes == nil {
				st.config.Volumes = map[string]struct{}{}
			}
			st.config.Volumes[one(w)] = struct{}{}
		}
	case "stopsignal":
		st.config.StopSignal = one(strings.Join(words, " "))
	case "shell", "healthcheck", "maintainer", "onbuild":
	default:
		return fmt.Errorf("Build error: Unknown instruction: %q ", strings.ToUpper(n.Value)) //nolint:staticcheck // buildah's words
	}
	return nil
}

func execForm(n *parser.Node, words []string) []string {
	if n.Attributes["json"] {
		return words
	}
	return []string{"/bin/sh", "-c", strings.Join(words, " ")}
}

// runStep runs the command of RUN in its three forms: a line, a JSON list, a here document.
func (e *execution) runStep(sp *stagePlan, st *stage, n *parser.Node) error {
	for _, f := range n.Flags {
		if strings.HasPrefix(f, "--mount=") || strings.HasPrefix(f, "--security=") || strings.HasPrefix(f, "--network=") {
			continue
		}
		return fmt.Errorf("unknown flag: %s", f)
	}
	workdir := st.config.WorkingDir
	sh := e.shell(st)
	words := chain(n)
	var code int
	switch {
	case len(words) == 0 || strings.TrimSpace(words[0]) == "":
		return errors.New("RUN requires at least one argument")
	case n.Attributes["json"]:
		code = sh.call(words, "", e.log)
	case len(n.Heredocs) > 0:
		code = sh.run(heredocScript(words[0], n))
	default:
		code = sh.run(words[0])
	}
	st.config.WorkingDir = workdir // cd holds for one RUN
	if code != 0 {
		return fmt.Errorf("while running runtime: exit status %d", code)
	}
	return nil
}

// heredocScript puts the command line and its here documents together again. A line that is nothing but one here
// document is the script itself.
func heredocScript(line string, n *parser.Node) string {
	if first := n.Heredocs[0]; len(n.Heredocs) == 1 {
		bare := strings.NewReplacer("<<-", "", "<<", "", `"`, "", "'", "").Replace(strings.TrimSpace(line))
		if bare == first.Name {
			return heredocBody(first.Content, first.Chomp)
		}
	}
	var b strings.Builder
	b.WriteString(line + "\n")
	for _, h := range n.Heredocs {
		b.WriteString(heredocBody(h.Content, h.Chomp) + h.Name + "\n")
	}
	return b.String()
}

// heredocBody is the content without the newline that the parser puts before each line.
func heredocBody(content string, chomp bool) string {
	content = strings.TrimPrefix(content, "\n")
	if content == "" {
		return ""
	}
	if chomp {
		lines := strings.Split(content, "\n")
		for i := range lines {
			lines[i] = strings.TrimLeft(lines[i], "\t")
		}
		content = strings.Join(lines, "\n")
	}
	return content + "\n"
}

// copyStep copies from a stage, an image, the build context, a URL, or here documents.
func (e *execution) copyStep(sp *stagePlan, st *stage, n *parser.Node) error {
	sh, text := e.shell(st), &shell{vars: st.env}
	name := strings.ToUpper(n.Value)
	words := chain(n)
	if len(words) < 2 {
		return fmt.Errorf("%s requires at least two arguments, but only one was provided", name)
	}
	mode := int64(0)
	for _, f := range n.Flags {
		if v, ok := strings.CutPrefix(f, "--chmod="); ok {
			m, err := strconv.ParseInt(v, 8, 32)
			if err != nil {
				return fmt.Errorf("parsing chmod %q: %w", v, err)
			}
			mode = m
		}
	}
	to := text.expandOne(words[len(words)-1])
	dir := strings.HasSuffix(to, "/") || len(words) > 2 || st.isDir(sh.path(to))
	put := func(target string, f file) {
		if mode != 0 {
			f.mode = mode
		}
		st.files[target] = f
	}
	from := map[string]file(nil)
	if src := source(n); src != "" {
		if i := e.plan.lookup(src, sp.index); i >= 0 {
			from = e.stages[i].files
		} else {
			files, err := imageFiles(e.images[src])
			if err != nil {
				return err
			}
			from = files
		}
	}
	docs := 0
	for _, w := range words[:len(words)-1] {
		if strings.HasPrefix(w, "<<") && docs < len(n.Heredocs) {
			h := n.Heredocs[docs]
			docs++
			body := heredocBody(h.Content, h.Chomp)
			if h.Expand {
				body = text.expandText(body)
			}
			target := sh.path(to)
			if dir {
				target = path.Join(target, h.Name)
			}
			put(target, file{data: []byte(body), mode: 0o644})
			continue
		}
		src := text.expandOne(w)
		if strings.HasPrefix(src, "https://") || strings.HasPrefix(src, "http://") {
			if name == "COPY" {
				return fmt.Errorf("source can't be a URL for COPY: %q", src)
			}
			fmt.Fprintf(e.log, "# %s: not modelled, an empty file stands for it\n", src)
			put(path.Join(sh.path(to), path.Base(src)), file{mode: 0o600})
			continue
		}
		if from == nil {
			data, ok := e.context(src)
			if !ok {
				return fmt.Errorf("checking on sources under \"/home/build/context\": copier: stat: %q: no such file or directory",
					path.Join("/", src))
			}
			target := sh.path(to)
			if dir {
				target = path.Join(target, path.Base(src))
			}
			put(target, file{data: data, mode: 0o644})
			continue
		}
		view := &stage{files: from}
		src = path.Join("/", src)
		matches := view.glob(src)
		if len(matches) == 0 {
			// Most files of a real image are not in its model.
			fmt.Fprintf(e.log, "# %s: not modelled, an empty file stands for it\n", src)
			target := sh.path(to)
			if dir {
				target = path.Join(target, path.Base(src))
			}
			put(target, file{mode: 0o755})
			continue
		}
		for _, m := range matches {
			for _, f := range view.below(m) {
				target := sh.path(to)
				switch {
				case f != m: // a directory's content goes into the target
					target = path.Join(target, strings.TrimPrefix(f, m))
				case dir || len(matches) > 1:
					target = path.Join(target, path.Base(f))
				}
				put(target, from[f])
			}
		}
	}
	return nil
}

// commit makes the image of a stage: the image that it started from and one layer with what changed.
func (st *stage) commit(created time.Time) (v1.Image, error) {
	if len(st.packages) > 0 || st.base[PackagesFile].data != nil {
		list, err := marshalPackages(st.sorted())
		if err != nil {
			return nil, err
		}
		st.files[PackagesFile] = file{data: list, mode: 0o644}
	}
	diff := map[string]file{}
	var size int64 = layerOverhead
	for name, f := range st.files {
		old, ok := st.base[name]
		// The package list is always written, so that it is found in the uppermost layer.
		if ok && name != PackagesFile && bytes.Equal(old.data, f.data) &&
			old.mode == f.mode && old.link == f.link && old.removed == f.removed {
			continue
		}
		diff[name] = f
		size += int64(len(f.data))
	}
	for _, p := range st.changed {
		if q, ok := st.packages[p.Name]; ok && q.EVR == p.EVR {
			size += p.size()
		}
	}
	before, err := st.image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading config: %w", err)
	}
	config := before.DeepCopy()
	config.Created = v1.Time{Time: created.UTC()}
	config.Config = *st.config.DeepCopy()
	if config.Architecture == "" {
		config.Architecture, config.OS = "amd64", "linux"
	}
	total := size
	if base, err := Inspect(st.image); err != nil {
		return nil, err
	} else if base.Size > 0 {
		total += base.Size
	}
	if config.Config.Labels == nil {
		config.Config.Labels = map[string]string{}
	}
	config.Config.Labels[LabelSize] = strconv.FormatInt(total, 10)
	for _, p := range st.sorted() {
		if slices.Contains([]string{"kernel-core", "kernel-rt-core", "kernel-64k-core"}, p.Name) && config.Config.Labels[LabelKernel] != "" {
			config.Config.Labels[LabelKernel] = p.EVR + "." + p.Arch
		}
	}
	return assemble(st.image, config, diff, size, "/bin/sh -c buildah bud", created)
}
