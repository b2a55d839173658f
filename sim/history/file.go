package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Format is the version of the file format: JSON lines, first the header, then one line a record. An object revision
// carries a JSON merge patch (RFC 7386) from the object's state before, an empty object before creation.
const Format = 1

// line is a record as a file has it.
type line struct {
	Record
	Diff json.RawMessage `json:"diff,omitempty"`
}

// Write writes a history. The same history gives the same bytes.
func Write(w io.Writer, h *History) error {
	out := bufio.NewWriterSize(w, 1<<16)
	header := h.Header
	header.Format = Format
	if err := encode(out, header); err != nil {
		return fmt.Errorf("write history: header: %w", err)
	}
	for n := range h.Records {
		l := line{Record: h.Records[n]}
		if c := l.Change; c != nil && c.New != nil {
			diff, err := difference(c.Old, c.New)
			if err != nil {
				return fmt.Errorf("write history: record %d: %w", l.Seq, err)
			}
			l.Diff = diff
		}
		if err := encode(out, l); err != nil {
			return fmt.Errorf("write history: record %d: %w", l.Seq, err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}

func encode(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

func difference(before, after *unstructured.Unstructured) ([]byte, error) {
	old := []byte("{}")
	if before != nil {
		var err error
		if old, err = json.Marshal(before.Object); err != nil {
			return nil, err
		}
	}
	now, err := json.Marshal(after.Object)
	if err != nil {
		return nil, err
	}
	return jsonpatch.CreateMergePatch(old, now)
}

// Read reads what [Write] wrote. Old and New of each change are there again; a field whose value was an explicit null is
// absent in them, for a merge patch can't tell the two apart.
func Read(r io.Reader) (*History, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	decoder := json.NewDecoder(in)
	h := &History{}
	if err := decoder.Decode(&h.Header); err != nil {
		return nil, fmt.Errorf("read history: header: %w", err)
	}
	if h.Header.Format != Format {
		return nil, fmt.Errorf("read history: format %d is not known, only %d is", h.Header.Format, Format)
	}
	type id struct {
		schema.GroupVersionKind
		namespace, name string
	}
	objects := map[id]*unstructured.Unstructured{}
	for decoder.More() {
		var l line
		if err := decoder.Decode(&l); err != nil {
			return nil, fmt.Errorf("read history: after record %d: %w", len(h.Records), err)
		}
		if c := l.Change; c != nil {
			key := id{c.GVK, c.Namespace, c.Name}
			c.Old = objects[key]
			if l.Diff == nil {
				delete(objects, key)
			} else {
				now, err := patched(c.Old, l.Diff)
				if err != nil {
					return nil, fmt.Errorf("read history: record %d: %w", l.Seq, err)
				}
				c.New = now
				objects[key] = now
			}
		}
		h.Records = append(h.Records, l.Record)
	}
	return h, nil
}

func patched(before *unstructured.Unstructured, diff []byte) (*unstructured.Unstructured, error) {
	old := []byte("{}")
	if before != nil {
		var err error
		if old, err = json.Marshal(before.Object); err != nil {
			return nil, err
		}
	}
	text, err := jsonpatch.MergePatch(old, diff)
	if err != nil {
		return nil, err
	}
	now := &unstructured.Unstructured{}
	return now, now.UnmarshalJSON(text)
}
