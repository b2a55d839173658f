package registry

import (
	"bytes"
	"context"
	"io"

	upstream "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobs keeps the blobs of a host: each content once, and which repositories have it. The handler's own store knows
// no repositories, so that everybody could read everything by digest. It is guarded by the Registry's mutex.
type blobs struct {
	content map[string][]byte          // by digest
	linked  map[string]map[string]bool // digest -> repositories
	kept    map[string]bool            // digests that the storage has
	target  string                     // repository of the upload that is being answered: the handler gets its name wrong
}

var (
	_ upstream.BlobHandler       = (*blobs)(nil)
	_ upstream.BlobStatHandler   = (*blobs)(nil)
	_ upstream.BlobPutHandler    = (*blobs)(nil)
	_ upstream.BlobDeleteHandler = (*blobs)(nil)
)

func newBlobs() *blobs {
	return &blobs{content: map[string][]byte{}, linked: map[string]map[string]bool{}}
}

func (b *blobs) has(repository, digest string) bool { return b.linked[digest][repository] }

func (b *blobs) put(repository, digest string, content []byte) {
	if b.linked[digest] == nil {
		b.linked[digest] = map[string]bool{}
		b.content[digest] = content
	}
	b.linked[digest][repository] = true
}

// link gives a repository a blob of another one (a mount), and tells whether the other has it.
func (b *blobs) link(from, to, digest string) bool {
	if !b.has(from, digest) {
		return false
	}
	b.linked[digest][to] = true
	return true
}

func (b *blobs) unlink(repository, digest string) {
	delete(b.linked[digest], repository)
	if len(b.linked[digest]) == 0 {
		delete(b.linked, digest)
		delete(b.content, digest)
	}
}

func (b *blobs) Stat(_ context.Context, repository string, h v1.Hash) (int64, error) {
	if !b.has(repository, h.String()) {
		return 0, upstream.ErrNotFound
	}
	return int64(len(b.content[h.String()])), nil
}

func (b *blobs) Get(_ context.Context, repository string, h v1.Hash) (io.ReadCloser, error) {
	if !b.has(repository, h.String()) {
		return nil, upstream.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(b.content[h.String()])), nil
}

func (b *blobs) Put(_ context.Context, _ string, h v1.Hash, rc io.ReadCloser) error {
	content, err := io.ReadAll(rc)
	if err != nil {
		return err // the handler compares it with its own error type
	}
	b.put(b.target, h.String(), content)
	return nil
}

func (b *blobs) Delete(_ context.Context, repository string, h v1.Hash) error {
	if !b.has(repository, h.String()) {
		return upstream.ErrNotFound
	}
	b.unlink(repository, h.String())
	return nil
}
