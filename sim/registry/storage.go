package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Storage keeps files. See [Folder].
type Storage interface {
	// Write makes a file, or replaces it, whole or not at all.
	Write(name string, content []byte) error
	// Remove removes a file. It is no error if there is none.
	Remove(name string) error
	// Each reads all files, sorted by name.
	Each(func(name string, content []byte) error) error
}

// The files: each blob of a host, and an index for each of its repositories.
const (
	blobFiles  = "blobs/"
	indexFiles = "repositories/"
)

// index is what a storage has of a repository.
type index struct {
	Blobs     []string            `json:"blobs"`
	Manifests map[string]document `json:"manifests"`
	Tags      map[string]string   `json:"tags"`
}

// document is a manifest.
type document struct {
	MediaType string `json:"mediaType"`
	Content   []byte `json:"content"`
}

// Keep takes in what a storage holds, and from now on keeps there all that is pushed, before it is answered. Accounts, quotas,
// the journal and unfinished uploads are not kept. Hosts that the registry doesn't have are added.
func (r *Registry) Keep(s Storage) error {
	blobs := map[string]map[string][]byte{} // by host and digest
	err := s.Each(func(name string, content []byte) error {
		if rest, ok := strings.CutPrefix(name, blobFiles); ok {
			host, digest, err := splitName(rest)
			if err != nil {
				return fmt.Errorf("storage: %s: %w", name, err)
			}
			if blobs[host] == nil {
				blobs[host] = map[string][]byte{}
			}
			blobs[host][digest] = content
			return nil
		}
		rest, ok := strings.CutPrefix(name, indexFiles)
		if !ok {
			return nil // somebody else's
		}
		host, path, err := splitName(rest)
		if err == nil {
			var i index
			if err = json.Unmarshal(content, &i); err == nil {
				r.AddHost(host)
				err = r.take(host, path, i, blobs[host])
			}
		}
		if err != nil {
			return fmt.Errorf("storage: %s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.storage = s
	for _, host := range slices.Sorted(maps.Keys(r.hosts)) {
		h := r.hosts[host]
		h.blobs.kept = map[string]bool{}
		for digest := range blobs[host] {
			h.blobs.kept[digest] = true
		}
		if err := r.keep(h, slices.Sorted(maps.Keys(h.held()))...); err != nil {
			return err
		}
	}
	return nil
}

// take puts a repository of a storage into the registry.
func (r *Registry) take(host, path string, i index, content map[string][]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hosts[host]
	for _, digest := range i.Blobs {
		if content[digest] == nil {
			return fmt.Errorf("blob %s is missing", digest)
		}
		h.blobs.put(path, digest, content[digest])
	}
	put := func(reference string, d document) error {
		_, err := h.put(route{manifest, path, reference}, d)
		return err
	}
	var indexes []string // refer to other manifests, which come first
	for _, digest := range slices.Sorted(maps.Keys(i.Manifests)) {
		if d := i.Manifests[digest]; bytes.Contains(d.Content, []byte(`"manifests"`)) {
			indexes = append(indexes, digest)
		} else if err := put(digest, d); err != nil {
			return err
		}
	}
	for _, digest := range indexes {
		if err := put(digest, i.Manifests[digest]); err != nil {
			return err
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(i.Tags)) {
		d, ok := i.Manifests[i.Tags[tag]]
		if !ok {
			return fmt.Errorf("tag %s: manifest %s is missing", tag, i.Tags[tag])
		}
		if err := put(tag, d); err != nil {
			return err
		}
	}
	return nil
}

// held are the repositories that have anything.
func (h *host) held() map[string]bool {
	all := map[string]bool{}
	for _, repositories := range h.blobs.linked {
		maps.Copy(all, repositories)
	}
	for name := range h.repositories {
		all[name] = true
	}
	return all
}

// keep writes what repositories hold, where there is a storage: blobs first, and removes those that nobody has any more last,
// so that each index finds its own whenever it is read. The caller holds the lock.
func (r *Registry) keep(h *host, repositories ...string) error {
	if r.storage == nil {
		return nil
	}
	for _, name := range repositories {
		i := index{Blobs: []string{}, Manifests: map[string]document{}, Tags: map[string]string{}}
		for _, digest := range slices.Sorted(maps.Keys(h.blobs.linked)) {
			if !h.blobs.has(name, digest) {
				continue
			}
			i.Blobs = append(i.Blobs, digest)
			if h.blobs.kept[digest] {
				continue
			}
			if err := r.storage.Write(blobFiles+joinName(h.name, digest), h.blobs.content[digest]); err != nil {
				return fmt.Errorf("keep blob %s: %w", digest, err)
			}
			h.blobs.kept[digest] = true
		}
		if repo := h.repositories[name]; repo != nil {
			i.Tags = repo.tags
			for _, digest := range slices.Sorted(maps.Keys(repo.manifests)) {
				a := h.serve(internal(http.MethodGet, name, digest), nil)
				if a.status != http.StatusOK {
					return fmt.Errorf("keep manifest %s of %s: %d", digest, name, a.status)
				}
				i.Manifests[digest] = document{a.header.Get("Content-Type"), a.body.Bytes()}
			}
		}
		content, err := json.Marshal(i)
		if err == nil {
			err = r.storage.Write(indexFiles+joinName(h.name, name), content)
		}
		if err != nil {
			return fmt.Errorf("keep repository %s/%s: %w", h.name, name, err)
		}
	}
	for _, digest := range slices.Sorted(maps.Keys(h.blobs.kept)) {
		if h.blobs.linked[digest] != nil {
			continue
		}
		if err := r.storage.Remove(blobFiles + joinName(h.name, digest)); err != nil {
			return fmt.Errorf("remove blob %s: %w", digest, err)
		}
		delete(h.blobs.kept, digest)
	}
	return nil
}

// joinName makes a file's name of a host and of what it holds; both may have slashes and colons.
func joinName(host, held string) string { return url.QueryEscape(host) + "/" + url.QueryEscape(held) }

func splitName(name string) (host, held string, err error) {
	escapedHost, escapedHeld, _ := strings.Cut(name, "/")
	host, hostErr := url.QueryUnescape(escapedHost)
	held, err = url.QueryUnescape(escapedHeld)
	if err := errors.Join(hostErr, err); err != nil {
		return "", "", err
	}
	if host == "" || held == "" {
		return "", "", errors.New("the name has no two parts")
	}
	return host, held, nil
}

// Folder is a storage on disk. A process that ends in the middle of a write leaves the old file, and one more whose name begins
// with a dot, which nobody reads.
type Folder string

// Write implements [Storage].
func (f Folder) Write(name string, content []byte) error {
	path := filepath.Join(string(f), filepath.FromSlash(name))
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	part, err := os.CreateTemp(dir, ".part-")
	if err != nil {
		return err
	}
	_, err = part.Write(content)
	if err = errors.Join(err, part.Close()); err == nil {
		err = os.Rename(part.Name(), path)
	}
	if err != nil {
		_ = os.Remove(part.Name()) // nobody reads it anyway
	}
	return err
}

// Remove implements [Storage].
func (f Folder) Remove(name string) error {
	err := os.Remove(filepath.Join(string(f), filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Each implements [Storage].
func (f Folder) Each(read func(name string, content []byte) error) error {
	err := filepath.WalkDir(string(f), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), ".") {
			return err
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was removed just now
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(string(f), path)
		if err != nil {
			return err
		}
		return read(filepath.ToSlash(name), content)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
