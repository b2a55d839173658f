package builder

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the golden files")

// frame is what the build controller puts before the user's Containerfile.
const frame = `FROM quay.io/openshift/base:4.18 AS extract
COPY ./machineconfig/machineconfig.json.gz /tmp/machineconfig.json.gz
RUN mkdir -p /etc/machine-config-daemon && \
    base64 -d /tmp/machineconfig.json.gz | gunzip > /etc/machine-config-daemon/currentconfig

FROM quay.io/openshift/base:4.18 AS configs
COPY --from=extract /etc/machine-config-daemon/currentconfig /etc/machine-config-daemon/currentconfig
RUN exec -a ignition-apply /usr/lib/dracut/modules.d/30ignition/ignition --ignore-unsupported \
    /etc/machine-config-daemon/currentconfig && \
    ostree container commit
LABEL machineconfig="rendered-layered-1"
LABEL machineconfigpool="layered"
LABEL baseOSContainerImage="quay.io/openshift/base:4.18"

`

var built = time.Date(2025, 2, 12, 19, 20, 44, 0, time.UTC)

func baseImage(t testing.TB) v1.Image {
	t.Helper()
	img, err := BaseImage(BaseOptions{Files: map[string]string{"/etc/chrony.conf": "pool pool.ntp.org\n", "/etc/motd": "hello\n"}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func machineConfig(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(`{"kind":"MachineConfig"}`)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return []byte(base64.StdEncoding.EncodeToString(b.Bytes()))
}

// buildText builds a Containerfile and returns the image, nil if it failed, and the log.
func buildText(t testing.TB, text string, repositories *Repositories) (v1.Image, string) {
	t.Helper()
	var log bytes.Buffer
	p, err := parseContainerfile(text)
	if err != nil {
		return nil, "Error: " + err.Error() + "\n"
	}
	images := map[string]v1.Image{}
	for _, ref := range p.images {
		switch ref {
		case "quay.io/openshift/base:4.18":
			images[ref] = baseImage(t)
		case "quay.io/tools/jq:1":
			if images[ref], err = BaseImage(BaseOptions{Packages: []Package{}, Files: map[string]string{
				"/usr/bin/jq": "#!jq", "/etc/yum.repos.d/a.repo": "[a]\n", "/etc/yum.repos.d/b.repo": "[b]\n"}}); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("unexpected image %s", ref)
		}
	}
	e := &execution{plan: p, images: images, repositories: repositories, log: &log, context: func(name string) ([]byte, bool) {
		if strings.TrimPrefix(name, "./") == "machineconfig/machineconfig.json.gz" {
			return machineConfig(t), true
		}
		return nil, false
	}}
	r, err := e.run()
	if err != nil {
		fmt.Fprintf(&log, "Error: %v\n", err)
		return nil, log.String()
	}
	img, err := r.stage.commit(built)
	if err != nil {
		t.Fatal(err)
	}
	return img, log.String()
}

// describe lists how an image differs from the base image.
func describe(t *testing.T, img v1.Image) string {
	t.Helper()
	var b strings.Builder
	base, err := Packages(baseImage(t))
	if err != nil {
		t.Fatal(err)
	}
	now, err := Packages(img)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range base {
		if !slices.ContainsFunc(now, func(q Package) bool { return q.NVRA() == p.NVRA() }) {
			fmt.Fprintln(&b, "- "+p.NVRA())
		}
	}
	for _, p := range now {
		if !slices.ContainsFunc(base, func(q Package) bool { return q.NVRA() == p.NVRA() }) {
			fmt.Fprintln(&b, "+ "+p.NVRA())
		}
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if err := layerFiles(layers[len(layers)-1], func(name string, f file) bool {
		switch {
		case name == PackagesFile:
		case f.removed:
			fmt.Fprintf(&b, "removed %s\n", name)
		case f.link != "":
			fmt.Fprintf(&b, "link %s -> %s\n", name, f.link)
		default:
			fmt.Fprintf(&b, "file %s %o %q\n", name, f.mode, f.data)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Config.Labels)) {
		fmt.Fprintf(&b, "label %s=%s\n", k, c.Config.Labels[k])
	}
	for _, e := range c.Config.Env {
		if !strings.HasPrefix(e, "PATH=") {
			fmt.Fprintf(&b, "env %s\n", e)
		}
	}
	if c.Config.User != "" || c.Config.WorkingDir != "" {
		fmt.Fprintf(&b, "user %q workdir %q\n", c.Config.User, c.Config.WorkingDir)
	}
	fmt.Fprintf(&b, "created %s\n", c.Created.Format(time.RFC3339))
	return b.String()
}

// TestContainerfiles builds each testdata/build/*.txtar: the file "Containerfile", with the frame before it unless the
// comment says "bare"; "unreachable ID" and "missing" in the comment arrange the repositories. The files "image" and
// "log" are the golden results.
func TestContainerfiles(t *testing.T) {
	names, err := filepath.Glob("testdata/build/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var text string
			files := map[string]string{}
			for _, f := range archive.Files {
				files[f.Name] = string(f.Data)
			}
			text = files["Containerfile"]
			repositories := DefaultRepositories()
			comment := string(archive.Comment)
			if !strings.Contains(comment, "bare") {
				text = frame + text
			}
			if _, id, ok := strings.Cut(comment, "unreachable "); ok {
				if !repositories.SetReachable(strings.Fields(id)[0], false) {
					t.Fatalf("no repository %s", id)
				}
			}
			img, log := buildText(t, text, repositories)
			if _, rest, ok := strings.Cut(log, "LABEL baseOSContainerImage=\"quay.io/openshift/base:4.18\"\n"); ok && !strings.Contains(comment, "whole log") {
				log = rest // the frame is the same each time
			}
			got := map[string]string{"log": log, "image": "failed\n"}
			if img != nil {
				got["image"] = describe(t, img)
			}
			if *update {
				a := &txtar.Archive{Comment: archive.Comment, Files: []txtar.File{
					{Name: "Containerfile", Data: []byte(files["Containerfile"])},
					{Name: "image", Data: []byte(got["image"])},
					{Name: "log", Data: []byte(got["log"])},
				}}
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, f := range []string{"image", "log"} {
				if diff := cmp.Diff(files[f], got[f]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", f, diff)
				}
			}
		})
	}
}

func TestReproducible(t *testing.T) {
	digest := func(text string, at time.Time) string {
		p, err := parseContainerfile(text)
		if err != nil {
			t.Fatal(err)
		}
		e := &execution{plan: p, images: map[string]v1.Image{"quay.io/openshift/base:4.18": baseImage(t)},
			repositories: DefaultRepositories(), log: &bytes.Buffer{}, context: func(string) ([]byte, bool) { return machineConfig(t), true }}
		r, err := e.run()
		if err != nil {
			t.Fatal(err)
		}
		img, err := r.stage.commit(at)
		if err != nil {
			t.Fatal(err)
		}
		h, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return h.String()
	}
	text := frame + "FROM configs AS final\nRUN rpm-ostree install tree vim-enhanced && touch /etc/a /etc/b /etc/c\n"
	first := digest(text, built)
	for range 10 {
		if again := digest(text, built); again != first {
			t.Fatalf("the same build gave %s and %s", first, again)
		}
	}
	if digest(text, built.Add(time.Second)) == first {
		t.Error("a rebuild at another time has the same digest")
	}
	if digest(text+"RUN rpm-ostree install tmux\n", built) == first {
		t.Error("another Containerfile has the same digest")
	}
}

func TestInspect(t *testing.T) {
	base, err := Inspect(baseImage(t))
	if err != nil {
		t.Fatal(err)
	}
	base.All = nil
	want := Labels{
		Version: "418.94.202501300706-0", Created: time.Date(2025, 1, 30, 7, 10, 58, 0, time.UTC), Size: 1 << 30,
		Kernel: "5.14.0-427.50.1.el9_4.x86_64",
	}
	if diff := cmp.Diff(want, base); diff != "" {
		t.Error(diff)
	}
	img, _ := buildText(t, frame+"FROM configs AS final\nRUN rpm-ostree install rng-tools\n", DefaultRepositories())
	got, err := Inspect(img)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Layered || got.Base != "quay.io/openshift/base:4.18" || got.MachineConfig != "rendered-layered-1" || got.Pool != "layered" ||
		got.Version != want.Version || !got.Created.Equal(built) || got.Size <= want.Size+layerOverhead {
		t.Errorf("%+v", got)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, l := range m.Layers {
		var n int64
		if _, err := fmt.Sscan(l.Annotations["io.layersim.size"], &n); err != nil {
			t.Error(err)
		}
		sum += n
	}
	if sum != got.Size {
		t.Errorf("the layers' sizes make %d, the label says %d", sum, got.Size)
	}
}

func TestShell(t *testing.T) {
	for _, tt := range []struct {
		script string
		want   string // log
		code   int
	}{
		{"echo a b  c", "a b c\n", 0},
		{"echo 'a  b' \"c  d\" e\\ f", "a  b c  d e f\n", 0},
		{"false && echo no || echo yes", "yes\n", 0},
		{"true || echo no; echo end", "end\n", 0},
		{"false; echo goes on", "goes on\n", 0},
		{"set -e; false; echo no", "", 1},
		{"set -e; false || true; echo yes", "yes\n", 0},
		{"set -e; if false; then echo no; fi; echo yes", "yes\n", 0},
		{"set -e; ! true; echo yes", "yes\n", 0},
		{"set -euo pipefail\nfalse | cat\necho no", "", 1},
		{"false | cat", "", 0},
		{"exit 7; echo no", "", 7},
		{"(exit 3); echo $?", "3\n", 0},
		{"echo a | exit 3; echo yes", "yes\n", 0},
		{"A=1 B='x y'; echo $A \"$B\" ${C:-none} ${A:+set}", "1 x y none set\n", 0},
		{"A='a b'; for i in $A c; do echo [$i]; done", "[a]\n[b]\n[c]\n", 0},
		{"if [ -f /etc/motd ]; then cat /etc/motd; elif true; then echo no; else echo no; fi", "hello\n", 0},
		{"if test -f /none; then echo no; elif [ a = a -a ! -f /none ]; then echo elif; else echo no; fi", "elif\n", 0},
		{"[[ abc == a* ]] && echo match", "match\n", 0},
		{"cat <<EOF\nA $HOME b\nEOF\necho after", "A /root b\nafter\n", 0},
		{"cat <<'EOF' | cat\n$HOME\nEOF", "$HOME\n", 0},
		{"cat <<-EOF\n\tindented\n\tEOF\n", "indented\n", 0},
		{"echo one > /f; echo two >> /f; cat < /f 2>/dev/null", "one\ntwo\n", 0},
		{"echo quiet > /dev/null 2>&1", "", 0},
		{"echo x{a,b}{1,2}", "xa1 xa2 xb1 xb2\n", 0},
		{"echo $(echo in; echo ner) `echo old`", "in ner old\n", 0},
		{"V=$(false) || echo failed", "failed\n", 0},
		{"printf '%s=%s\\n' a 1 b 2", "a=1\nb=2\n", 0},
		{"touch /d/a.x /d/b.x /d/c.y; echo /d/*.x", "/d/a.x /d/b.x\n", 0},
		{"bash -c 'set -e; false; echo no' || echo caught", "caught\n", 0},
		{"# comment\necho a # b\n", "a\n", 0},
		{"{ echo a; echo b; } | cat", "a\nb\n", 0},
		{"unknown-tool --flag", "# unknown-tool: not modelled, taken to succeed\n", 0},
		{"case x in x) echo no;; esac", "# case: not interpreted: taken to succeed\n", 0},
		{"f() { echo no; }; f", "# function: not interpreted: taken to succeed\n", 0},
		{"echo 'open", "/bin/sh: -c: line 1: unexpected EOF while looking for matching `''\n", 2},
		{"if true; then echo a", "/bin/sh: -c: line 1: syntax error: wanted `fi', found `'\n", 2},
		{"true )", "/bin/sh: -c: line 1: syntax error near unexpected token `)'\n", 2},
		{"&& true", "/bin/sh: -c: line 1: syntax error: command expected\n", 2},
		{"cat <<EOF\nno end", "/bin/sh: -c: line 1: here-document delimited by end-of-file (wanted `EOF')\n", 2},
		{"rpm -q bash tree", "bash-5.1.8-9.el9.x86_64\npackage tree is not installed\n", 1},
		{"rpm -qa | grep bash >/dev/null && echo ok", "# grep: not modelled, taken to succeed\nok\n", 0},
		{"cat /none || exit 4", "cat: /none: No such file or directory\n", 4},
		{"export A=1; sh -c 'echo $A'", "1\n", 0},
		{"while read x; do echo no; done; echo on", "# loop: not interpreted, taken to end at once\non\n", 0},
		{"echo $((1+2)) $ a$", "0 $ a$\n", 0},
		{"diff <(echo a) <(echo b)", "# diff: not modelled, taken to succeed\n", 0},
		{"set -x; echo a", "+ echo a\na\n", 0},
	} {
		t.Run(tt.script, func(t *testing.T) {
			st := &stage{image: baseImage(t), repositories: DefaultRepositories(), packages: map[string]Package{}, env: map[string]string{"HOME": "/root"}}
			if err := st.load(); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			code := (&execution{log: &log}).shell(st).run(tt.script)
			if code != tt.code || log.String() != tt.want {
				t.Errorf("exit code %d, want %d\n%s", code, tt.code, cmp.Diff(tt.want, log.String()))
			}
		})
	}
}

// FuzzShell: no script may hang or panic.
func FuzzShell(f *testing.F) {
	for _, s := range []string{"", "a $(b `c", "${", "$(", "<<E", "{a,{b,c}", "if", "for x in", "( ( (", "\"$(", "a<(b", "!", "! !", "1>", ">&", "$((("} {
		f.Add(s)
	}
	st := &stage{image: baseImage(f), repositories: DefaultRepositories(), packages: map[string]Package{}, env: map[string]string{}}
	if err := st.load(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, script string) {
		one := *st
		one.files, one.packages = maps.Clone(st.files), maps.Clone(st.packages)
		(&execution{log: &bytes.Buffer{}}).shell(&one).run(script)
	})
}
