package registry_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/layersim/layersim/sim/registry"
)

func keep(t *testing.T, s registry.Storage) *registry.Registry {
	t.Helper()
	r := newRegistry(t)
	if err := r.Keep(s); err != nil {
		t.Fatal(err)
	}
	return r
}

// files lists what a folder has, with the digests cut off.
func files(t *testing.T, folder string) (blobs, others int) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if strings.Contains(path, "/blobs/") {
			blobs++
		} else {
			others++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return blobs, others
}

// A registry goes on where another one ended: images by tag and digest, mounted blobs, lists, and what was deleted.
func TestKeep(t *testing.T) {
	folder := t.TempDir()
	first := keep(t, registry.Folder(folder))
	base, layered, gone := image(t, "base"), image(t, "base", "tree:1000"), image(t, "gone")
	if _, err := first.PutImage("quay.io/os/base:4.18", base); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"a", "b"} {
		if err := remote.Write(reference(t, internal+"/openshift/os:"+tag), layered, options(first, pusher)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := remote.Write(reference(t, internal+"/openshift/os:gone"), gone, options(first, pusher)...); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference(t, internal+"/openshift/other:a"), layered, options(first, pusher)...); err != nil {
		t.Fatal(err)
	}
	list := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: layered})
	if err := remote.WriteIndex(reference(t, internal+"/openshift/os:list"), list, options(first, pusher)...); err != nil {
		t.Fatal(err)
	}
	for _, deleted := range []string{internal + "/openshift/os@" + digest(t, gone), internal + "/openshift/os:b"} {
		if err := remote.Delete(reference(t, deleted), options(first, pusher)...); err != nil {
			t.Fatal(err)
		}
	}
	// In two repositories of one host, and one of another; of the image that is gone there is nothing left.
	blobs, others := files(t, folder)

	second := keep(t, registry.Folder(folder))
	for ref, want := range map[string]string{
		"quay.io/os/base:4.18":                           digest(t, base),
		internal + "/openshift/os:a":                     digest(t, layered),
		internal + "/openshift/os@" + digest(t, layered): digest(t, layered),
		internal + "/openshift/other:a":                  digest(t, layered),
	} {
		img, err := remote.Image(reference(t, ref), options(second, puller)...)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		got, err := registry.Copy(img) // reads all of it
		if err != nil || digest(t, got) != want {
			t.Errorf("%s: %v, want %s", ref, err, want)
		}
	}
	if index, err := remote.Index(reference(t, internal+"/openshift/os:list"), options(second, puller)...); err != nil {
		t.Error(err)
	} else if got, _ := index.Digest(); got != must(list.Digest()) {
		t.Errorf("list %s", got)
	}
	if got := second.Tags(internal + "/openshift/os"); cmp.Diff([]string{"a", "list"}, got) != "" {
		t.Errorf("tags %v", got)
	}
	if _, err := remote.Image(reference(t, internal+"/openshift/os@"+digest(t, gone)), options(second, puller)...); status(err) != http.StatusNotFound {
		t.Errorf("deleted: %v", err)
	}
	if got, want := second.Usage(internal+"/openshift/os"), first.Usage(internal+"/openshift/os"); got != want {
		t.Errorf("usage %d, want %d", got, want)
	}
	if blobs != 5 || others != 3 { // 2 layers and 2 configs: base's on both hosts
		t.Errorf("%d blobs and %d others are kept", blobs, others)
	}
	// What the last image of a host needed goes with it.
	if err := second.Delete("quay.io/os/base@" + digest(t, base)); err != nil {
		t.Fatal(err)
	}
	if fewer, _ := files(t, folder); fewer >= blobs {
		t.Errorf("%d blobs of %d are kept", fewer, blobs)
	}
	third := keep(t, registry.Folder(folder))
	if _, err := third.Image("quay.io/os/base:4.18"); err == nil {
		t.Error("deleted, and there again")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type full struct{ registry.Folder }

func (full) Write(string, []byte) error { return errors.New("no space left on device") }

// What can't be kept is not there.
func TestKeepFails(t *testing.T) {
	r := keep(t, full{registry.Folder(t.TempDir())})
	err := remote.Write(reference(t, internal+"/openshift/os:a"), image(t, "base"), options(r, pusher)...)
	if status(err) != http.StatusInternalServerError || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("push: %v", err)
	}
	if _, err := r.PutImage("quay.io/os/base:1", image(t, "base")); err == nil {
		t.Error("put")
	}
}

// What an interrupted write left is not read, and what is damaged is told.
func TestDamagedStorage(t *testing.T) {
	folder := t.TempDir()
	if _, err := keep(t, registry.Folder(folder)).PutImage("quay.io/os/base:1", image(t, "base")); err != nil {
		t.Fatal(err)
	}
	indexes := filepath.Join(folder, "repositories", "quay.io")
	if err := os.WriteFile(filepath.Join(indexes, ".part-1"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	keep(t, registry.Folder(folder))
	for name, damage := range map[string]func() error{
		"is missing": func() error { return os.RemoveAll(filepath.Join(folder, "blobs")) },
		"unexpected": func() error { return os.WriteFile(filepath.Join(indexes, "os%2Fbase"), []byte("{"), 0o600) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if err := newRegistry(t).Keep(registry.Folder(folder)); err == nil || !strings.Contains(err.Error(), "repositories/quay.io/os%2Fbase") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
