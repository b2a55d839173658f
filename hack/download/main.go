// Download fetches the released programs of a Kubernetes control plane, as far as they can be had: etcd and kube-apiserver
// from the archives that controller-tools publishes for envtest, and every program of Kubernetes from its own releases.
// Each one is checked against the published hash, and gets its name only when it is whole and runs, so that an interrupted
// download never looks like a finished one.
//
// What can't be had is told, with the reason, and left to whoever called: that is no failure, and the exit status is 0. Whether
// there is internet is known after five seconds at the latest.
//
// Usage:
//
//	go run ./hack/download -version v1.37.2 -folder FOLDER PROGRAM...
//
// Proxies are those of the environment (HTTPS_PROXY).
package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"
)

func main() {
	d := downloads{reach: 5 * time.Second, stall: 15 * time.Second, every: 5 * time.Second, out: os.Stdout}
	flag.StringVar(&d.version, "version", "", "of Kubernetes, such as v1.37.2")
	flag.StringVar(&d.folder, "folder", "", "where the programs go to")
	flag.StringVar(&d.index, "index", "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml",
		"`URL` of the index of envtest's archives")
	flag.StringVar(&d.releases, "releases", "https://dl.k8s.io/release", "`URL` of Kubernetes' releases")
	limit := flag.Duration("limit", 10*time.Minute, "how long it may take: building takes no longer")
	flag.Parse()
	if d.version == "" || d.folder == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, *limit, fmt.Errorf("it took longer than %s", *limit))
	defer cancel()
	d.get(ctx, flag.Args())
}

// downloads are those of one version.
type downloads struct {
	version, folder string
	// index and releases are where the programs come from.
	index, releases string
	// reach is how long it may take until it is known what there is; stall is how long nothing may come; every is how
	// often it is told how much has come.
	reach, stall, every time.Duration
	out                 io.Writer
}

// offer is something that can be downloaded.
type offer struct {
	url  string
	sum  string // hexadecimal
	hash func() hash.Hash
}

// enveloped are the programs that are in envtest's archives.
var enveloped = []string{"etcd", "kube-apiserver"}

func (d *downloads) say(format string, arguments ...any) {
	fmt.Fprintf(d.out, "controlplane: "+format+"\n", arguments...)
}

// get downloads programs, as far as they can be had.
func (d *downloads) get(ctx context.Context, programs []string) {
	archive, released := d.ask(ctx, programs)
	wanted := slices.DeleteFunc(slices.Clone(programs), func(name string) bool { return !slices.Contains(enveloped, name) })
	if archive != nil {
		if err := d.archive(ctx, archive, wanted); err != nil {
			d.say("%s not downloaded: %v", strings.Join(wanted, " and "), err)
		}
	}
	for _, name := range programs {
		if o := released[name]; o != nil && !d.has(name) && ctx.Err() == nil {
			if err := d.program(ctx, name, o); err != nil {
				d.say("%s not downloaded: %v", name, err)
			}
		}
	}
}

func (d *downloads) has(name string) bool {
	_, err := os.Stat(filepath.Join(d.folder, name))
	return err == nil
}

// ask finds out what there is, and says what there isn't. All places are asked at once, so that it takes no longer than one.
func (d *downloads) ask(ctx context.Context, programs []string) (archive *offer, released map[string]*offer) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.reach, fmt.Errorf("no answer after %s", d.reach))
	defer cancel()
	released = map[string]*offer{}
	errs := make([]error, len(programs)+1)
	var mu sync.Mutex
	var asking sync.WaitGroup
	for n, name := range programs {
		if name == "etcd" {
			continue // it isn't Kubernetes'
		}
		asking.Go(func() {
			o := &offer{url: fmt.Sprintf("%s/%s/bin/%s/%s/%s", d.releases, d.version, runtime.GOOS, runtime.GOARCH, name), hash: sha256.New}
			text, err := read(ctx, o.url+".sha256")
			if fields := strings.Fields(string(text)); err == nil && len(fields) > 0 {
				o.sum = fields[0]
			}
			mu.Lock()
			defer mu.Unlock()
			if errs[n] = err; err == nil {
				released[name] = o
			}
		})
	}
	if slices.ContainsFunc(programs, func(name string) bool { return slices.Contains(enveloped, name) }) {
		asking.Go(func() { archive, errs[len(programs)] = d.published(ctx) })
	}
	asking.Wait()
	unreachable := func(err error) bool { return err == nil || errors.As(err, new(*url.Error)) }
	if archive == nil && len(released) == 0 && !slices.ContainsFunc(errs, func(err error) bool { return !unreachable(err) }) {
		first := slices.IndexFunc(errs, func(err error) bool { return err != nil })
		d.say("no internet: %v", errs[first])
		return nil, nil
	}
	for n, err := range errs {
		switch {
		case err != nil && n < len(programs):
			d.say("no released %s: %v", programs[n], err)
		case err != nil:
			d.say("no released %s: %v", strings.Join(enveloped, " and "), err)
		}
	}
	return archive, released
}

// published finds envtest's archive in the index.
func (d *downloads) published(ctx context.Context) (*offer, error) {
	text, err := read(ctx, d.index)
	if err != nil {
		return nil, err
	}
	var index struct {
		Releases map[string]map[string]struct{ Hash, SelfLink string }
	}
	if err := yaml.Unmarshal(text, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", d.index, err)
	}
	name := fmt.Sprintf("envtest-%s-%s-%s.tar.gz", d.version, runtime.GOOS, runtime.GOARCH)
	a := index.Releases[d.version][name]
	if a.SelfLink == "" {
		return nil, fmt.Errorf("envtest has not published %s", name)
	}
	return &offer{url: a.SelfLink, sum: a.Hash, hash: sha512.New}, nil
}

// most is how long a text may be that is read as a whole.
const most = 16 << 20

// read returns what is at a URL.
func read(ctx context.Context, from string) ([]byte, error) {
	response, err := open(ctx, from)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, most))
	if err != nil {
		return nil, &url.Error{Op: "Get", URL: from, Err: because(ctx, err)}
	}
	return text, nil
}

func open(ctx context.Context, from string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		if failed := (*url.Error)(nil); errors.As(err, &failed) {
			err = &url.Error{Op: failed.Op, URL: failed.URL, Err: because(ctx, failed.Err)}
		}
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s: %s", from, response.Status), response.Body.Close())
	}
	return response, nil
}

// because prefers the reason why a context ended to what came of it.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// program downloads one program.
func (d *downloads) program(ctx context.Context, name string, o *offer) error {
	began := time.Now()
	part, err := d.whole(ctx, name, o)
	if err != nil {
		return err
	}
	if err := d.finish(part, name); err != nil {
		return err
	}
	d.say("%s downloaded in %.0f s", name, time.Since(began).Seconds())
	return nil
}

// archive downloads programs that are in one archive.
func (d *downloads) archive(ctx context.Context, o *offer, names []string) error {
	began := time.Now()
	part, err := d.whole(ctx, strings.Join(names, " and "), o)
	if err != nil {
		return err
	}
	defer os.Remove(part)
	f, err := os.Open(part)
	if err != nil {
		return err
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("%s: %w", o.url, err)
	}
	var found []string
	for files := tar.NewReader(unzipped); ; {
		header, err := files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o.url, err)
		}
		name := path.Base(header.Name)
		if header.Typeflag != tar.TypeReg || !slices.Contains(names, name) {
			continue
		}
		file, err := d.part()
		if err != nil {
			return err
		}
		if _, err := io.Copy(file, files); err != nil {
			return errors.Join(fmt.Errorf("unpack %s: %w", name, err), file.Close(), os.Remove(file.Name()))
		}
		if err := errors.Join(file.Close(), d.finish(file.Name(), name)); err != nil {
			return err
		}
		found = append(found, name)
	}
	if len(found) < len(names) {
		return fmt.Errorf("%s has no more of them than: %s", o.url, strings.Join(found, ", "))
	}
	d.say("%s downloaded in %.0f s", strings.Join(names, " and "), time.Since(began).Seconds())
	return nil
}

// part makes a file for what isn't finished.
func (d *downloads) part() (*os.File, error) { return os.CreateTemp(d.folder, ".download-*.part") }

// finish gives a program its name, when it runs here and says that it is of the version.
func (d *downloads) finish(part, name string) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	if err := os.Chmod(part, 0o755); err != nil {
		return err
	}
	version, err := exec.Command(part, "--version").Output()
	if err != nil {
		return fmt.Errorf("refused: it doesn't run here: %w", err)
	}
	if first, _, _ := strings.Cut(string(version), "\n"); name != "etcd" && first != "Kubernetes "+d.version {
		return fmt.Errorf("refused: it says that it is %q", first)
	}
	return os.Rename(part, filepath.Join(d.folder, name))
}

// whole downloads a file and compares its hash. Name is what to call it.
func (d *downloads) whole(ctx context.Context, name string, o *offer) (file string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(d.stall, func() { cancel(fmt.Errorf("nothing came for %s", d.stall)) })
	defer stalled.Stop()
	d.say("downloading %s from %s ...", name, o.url)
	response, err := open(ctx, o.url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	part, err := d.part()
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, part.Close()); err != nil {
			err = errors.Join(err, os.Remove(part.Name()))
		}
	}()
	sum, got, told := o.hash(), int64(0), time.Now()
	for {
		n, err := io.CopyN(io.MultiWriter(part, sum), response.Body, 64<<10)
		stalled.Reset(d.stall)
		got += n
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", because(ctx, err)
		}
		if time.Since(told) >= d.every {
			told = time.Now()
			d.say("%s: %d of %d MB", name, got/1e6, max(response.ContentLength, 0)/1e6)
		}
	}
	if s := hex.EncodeToString(sum.Sum(nil)); s != o.sum {
		return "", fmt.Errorf("refused: the hash of %s is %.16s…, and %.16s… was published", o.url, s, o.sum)
	}
	return part.Name(), nil
}
