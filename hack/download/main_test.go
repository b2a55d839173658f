package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var all = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// site is what is published; tests take it away, break it, or answer by themselves.
type site struct {
	*httptest.Server
	version string

	mu      sync.Mutex
	pages   map[string]string
	answers map[string]http.HandlerFunc
}

func newSite(t *testing.T, version string) *site {
	s := &site{version: version, pages: map[string]string{}, answers: map[string]http.HandlerFunc{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		page, ok := s.pages[r.URL.Path]
		answer := s.answers[r.URL.Path]
		s.mu.Unlock()
		switch {
		case answer != nil:
			answer(w, r)
		case ok:
			_, _ = w.Write([]byte(page)) // the client may have gone
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.CloseClientConnections)
	t.Cleanup(s.Close)
	for _, name := range all[1:] {
		s.release(name, program(name, version))
	}
	s.archive(map[string]string{"etcd": program("etcd", "3.7.0"), "kube-apiserver": program("kube-apiserver", version), "kubectl": "nobody wants it"})
	return s
}

// program says that it is of a version.
func program(name, version string) string {
	return fmt.Sprintf("#!/bin/sh\n# %s\necho Kubernetes %s\n%s", name, version, strings.Repeat("#\n", 200_000))
}

func (s *site) path(name string) string {
	return fmt.Sprintf("/release/%s/bin/%s/%s/%s", s.version, runtime.GOOS, runtime.GOARCH, name)
}

func (s *site) release(name, content string) {
	s.pages[s.path(name)] = content
	s.pages[s.path(name)+".sha256"] = fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
}

func (s *site) archive(files map[string]string) {
	var b bytes.Buffer
	zipped := gzip.NewWriter(&b)
	archive := tar.NewWriter(zipped)
	for name, content := range files {
		_ = archive.WriteHeader(&tar.Header{Name: "controller-tools/envtest/" + name, Size: int64(len(content)), Mode: 0o755, Typeflag: tar.TypeReg})
		_, _ = archive.Write([]byte(content)) // in memory
	}
	_, _ = archive.Close(), zipped.Close()
	s.pages["/archive.tar.gz"] = b.String()
	s.pages["/index.yaml"] = fmt.Sprintf("releases:\n  %s:\n    envtest-%[1]s-%s-%s.tar.gz:\n      hash: %x\n      selfLink: %s/archive.tar.gz\n",
		s.version, runtime.GOOS, runtime.GOARCH, sha512.Sum512(b.Bytes()), s.URL)
}

// half answers with the first half of a page, and then does something else.
func (s *site) half(path string, then func(*http.Request)) {
	s.answers[path] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(s.pages[path])))
		_, _ = w.Write([]byte(s.pages[path][:len(s.pages[path])/2]))
		w.(http.Flusher).Flush()
		then(r)
		panic(http.ErrAbortHandler)
	}
}

func gone(r *http.Request) { <-r.Context().Done() }

func TestGet(t *testing.T) {
	const version = "v1.37.2"
	tests := []struct {
		name  string
		spoil func(s *site, d *downloads, cancel context.CancelFunc)
		want  []string // what is there afterwards
		says  []string
	}{
		{name: "all", want: all, says: []string{"downloading etcd and kube-apiserver from http", "etcd and kube-apiserver downloaded in", "kube-scheduler downloaded in"}},
		{name: "an archive of another hash", want: all[1:], says: []string{"etcd and kube-apiserver not downloaded: refused: the hash of", "kube-apiserver downloaded"},
			spoil: func(s *site, _ *downloads, _ context.CancelFunc) { s.pages["/archive.tar.gz"] += "x" }},
		{name: "a program of another hash", want: all[:3], says: []string{"kube-scheduler not downloaded: refused: the hash of"},
			spoil: func(s *site, _ *downloads, _ context.CancelFunc) { s.pages[s.path("kube-scheduler")] += "x" }},
		{name: "a hash that is none", want: all[:3], says: []string{"kube-scheduler not downloaded: refused: the hash of"},
			spoil: func(s *site, _ *downloads, _ context.CancelFunc) { s.pages[s.path("kube-scheduler")+".sha256"] = "" }},
		{name: "another version", want: all[:3], says: []string{`kube-scheduler not downloaded: refused: it says that it is "Kubernetes v1.37.1"`},
			spoil: func(s *site, _ *downloads, _ context.CancelFunc) {
				s.release("kube-scheduler", program("kube-scheduler", "v1.37.1"))
			}},
		{name: "it doesn't run", want: all[:3], says: []string{"kube-scheduler not downloaded: refused: it doesn't run here"},
			spoil: func(s *site, _ *downloads, _ context.CancelFunc) { s.release("kube-scheduler", "\x7fELF") }},
		{name: "not in the index", want: all[1:], says: []string{"no released etcd and kube-apiserver: envtest has not published envtest-v1.37.2-"},
			spoil: func(s *site, _ *downloads, _ context.CancelFunc) {
				s.pages["/index.yaml"] = strings.ReplaceAll(s.pages["/index.yaml"], version, "v1.37.0")
			}},
		{name: "no release", want: all[:2], says: []string{"no released kube-controller-manager: http", "404 Not Found", "no released kube-scheduler"},
			spoil: func(s *site, _ *downloads, _ context.CancelFunc) {
				for _, name := range all[1:] {
					delete(s.pages, s.path(name)+".sha256")
				}
			}},
		{name: "an archive without one", want: slices.Concat(all[1:]), says: []string{"has no more of them than: kube-apiserver"},
			spoil: func(s *site, _ *downloads, _ context.CancelFunc) {
				s.archive(map[string]string{"kube-apiserver": program("kube-apiserver", version)})
			}},
		{name: "an index that is none", want: all[1:], says: []string{"no released etcd and kube-apiserver: "},
			spoil: func(s *site, _ *downloads, _ context.CancelFunc) { s.pages["/index.yaml"] = "<html>sign in first" }},
		{name: "nobody listens", says: []string{"no internet: Get "},
			spoil: func(s *site, _ *downloads, _ context.CancelFunc) { s.Close() }},
		{name: "no such host", says: []string{"no internet: Get "},
			spoil: func(_ *site, d *downloads, _ context.CancelFunc) {
				d.index, d.releases = "http://layersim.invalid/index.yaml", "http://layersim.invalid/release"
			}},
		{name: "no answer", says: []string{"no internet: Get ", "no answer after 300ms"},
			spoil: func(s *site, d *downloads, _ context.CancelFunc) {
				d.reach = 300 * time.Millisecond
				for path := range s.pages {
					s.answers[path] = func(_ http.ResponseWriter, r *http.Request) { gone(r) }
				}
			}},
		{name: "half an answer", says: []string{"no internet: Get ", "no answer after 300ms"},
			spoil: func(s *site, d *downloads, _ context.CancelFunc) {
				d.reach = 300 * time.Millisecond
				for path := range s.pages {
					s.half(path, gone)
				}
			}},
		{name: "a connection that breaks", want: all[:3], says: []string{"kube-scheduler not downloaded: unexpected EOF"},
			spoil: func(s *site, _ *downloads, _ context.CancelFunc) {
				s.half(s.path("kube-scheduler"), func(*http.Request) {})
			}},
		{name: "an archive that breaks", want: all[1:], says: []string{"etcd and kube-apiserver not downloaded: unexpected EOF"},
			spoil: func(s *site, _ *downloads, _ context.CancelFunc) { s.half("/archive.tar.gz", func(*http.Request) {}) }},
		{name: "one that stalls", want: all[:3], says: []string{"kube-scheduler not downloaded: nothing came for 200ms"},
			spoil: func(s *site, d *downloads, _ context.CancelFunc) {
				d.stall = 200 * time.Millisecond
				s.half(s.path("kube-scheduler"), gone)
			}},
		{name: "one that never begins", want: all[:3], says: []string{"kube-scheduler not downloaded: Get ", "nothing came for 200ms"},
			spoil: func(s *site, d *downloads, _ context.CancelFunc) {
				d.stall = 200 * time.Millisecond
				s.answers[s.path("kube-scheduler")] = func(_ http.ResponseWriter, r *http.Request) { gone(r) }
			}},
		{name: "an interrupt", want: all[:2], says: []string{"kube-controller-manager not downloaded: ", "context canceled"},
			spoil: func(s *site, _ *downloads, cancel context.CancelFunc) {
				s.half(s.path("kube-controller-manager"), func(r *http.Request) { cancel(); gone(r) })
			}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t, version)
			var out bytes.Buffer
			d := &downloads{version: version, folder: t.TempDir(), index: s.URL + "/index.yaml", releases: s.URL + "/release",
				reach: time.Minute, stall: time.Minute, every: time.Hour, out: &out}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if test.spoil != nil {
				test.spoil(s, d, cancel)
			}
			began := time.Now()
			d.get(ctx, all)
			if took := time.Since(began); test.want == nil && took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			var got []string
			entries, err := os.ReadDir(d.folder)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				got = append(got, e.Name())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("in the folder:\n%s\n%s", diff, &out)
			}
			for _, want := range test.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in:\n%s", want, &out)
				}
			}
			for _, name := range got {
				if text, err := os.ReadFile(filepath.Join(d.folder, name)); err != nil || !strings.HasSuffix(string(text), "#\n#\n") {
					t.Errorf("%s is not whole: %v", name, err)
				}
			}
		})
	}
}

// script runs hack/controlplane/build with other arguments for the environment, and returns what it says and what is in
// its folder.
func script(t *testing.T, folder string, environment ...string) (out, files string) {
	t.Helper()
	cmd := exec.Command("bash", "../controlplane/build")
	cmd.Env = append(os.Environ(), append(environment, "LAYERSIM_CONTROLPLANE="+folder)...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	found, err := filepath.Glob(filepath.Join(folder, "[^.]*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(content), "\n")
		files += filepath.Base(file) + ": " + first + "\n"
	}
	if left, err := filepath.Glob(filepath.Join(folder, ".*.part")); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	return string(text), files
}

// The build downloads what there is, and builds the rest, or all when it is told to.
func TestBuildScript(t *testing.T) {
	module, err := os.ReadFile("../controlplane/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(string(module), "\tk8s.io/kubernetes ")
	version = strings.Fields(version)[0]
	s := newSite(t, version)
	delete(s.pages, s.path("kube-scheduler")+".sha256")
	// A go command that really downloads, but doesn't really build.
	command := filepath.Join(t.TempDir(), "go")
	fake := `#!/bin/sh
[ "$1" != run ] || exec go "$@"
while [ "$1" != -o ]; do shift; done
echo built >"$2"
chmod +x "$2"
`
	if err := os.WriteFile(command, []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	mirrors := []string{"GO=" + command, "LAYERSIM_ENVTEST_INDEX=" + s.URL + "/index.yaml", "LAYERSIM_KUBERNETES_RELEASES=" + s.URL + "/release"}

	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, ".download-1.part"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, files := script(t, folder, mirrors...)
	want := "etcd: #!/bin/sh\nkube-apiserver: #!/bin/sh\nkube-controller-manager: #!/bin/sh\nkube-scheduler: built\n"
	if files != want || !strings.Contains(out, "controlplane: building kube-scheduler of Kubernetes "+version) {
		t.Errorf("got\n%swant\n%s%s", files, want, out)
	}
	if out, _ := script(t, folder, mirrors...); out != "" {
		t.Errorf("with everything there it says %s", out)
	}

	all := "etcd: built\nkube-apiserver: built\nkube-controller-manager: built\nkube-scheduler: built\n"
	out, files = script(t, t.TempDir(), append(mirrors, "LAYERSIM_DOWNLOAD=no")...)
	if files != all || strings.Contains(out, "released") {
		t.Errorf("told not to download: got\n%swant\n%s%s", files, all, out)
	}
	s.Close()
	out, files = script(t, t.TempDir(), mirrors...)
	if files != all || !strings.Contains(out, "no internet: ") {
		t.Errorf("without internet: got\n%swant\n%s%s", files, all, out)
	}
}
