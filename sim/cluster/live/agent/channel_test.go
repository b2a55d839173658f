package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

type sum struct{ A, B int }

func newSums(t *testing.T) (*Answers, *Asker) {
	t.Helper()
	a := NewAnswers("right")
	Answer(a, "/sum", func(_ context.Context, from string, q sum) (string, error) {
		if q.B == 0 {
			return "", errors.New("nothing to add")
		}
		return fmt.Sprint(from, " ", q.A+q.B), nil
	})
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	u, err := url.Parse(strings.Replace(server.URL, "http://", "http://pupil:right@", 1))
	if err != nil {
		t.Fatal(err)
	}
	return a, At(u)
}

// A question is answered, with an error too; whoever doesn't know the token, or asks elsewhere, is told so.
func TestAsk(t *testing.T) {
	_, asker := newSums(t)
	var answer string
	if err := asker.Ask(t.Context(), "/sum", sum{1, 2}, &answer); err != nil || answer != "pupil 3" {
		t.Errorf("answer %q, %v", answer, err)
	}
	if err := asker.Ask(t.Context(), "/sum", sum{1, 2}, nil); err != nil {
		t.Error(err)
	}
	stranger := *asker
	stranger.Token, stranger.Patience = "wrong", 200*time.Millisecond // the other end may be replaced by one with this token
	for _, tt := range []struct {
		asker *Asker
		path  string
		q     any
		want  string
	}{
		{asker, "/sum", sum{1, 0}, "ask /sum: nothing to add"},
		{asker, "/sum", "text", "read the question"},
		{asker, "/other", sum{}, "nobody answers at /other"},
		{&stranger, "/sum", sum{1, 2}, "the token is another's"},
	} {
		start := time.Now()
		if err := tt.asker.Ask(t.Context(), tt.path, tt.q, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %v: %v, want %q", tt.path, tt.q, err, tt.want)
		}
		if time.Since(start) > 5*time.Second {
			t.Errorf("%s %v: asked again", tt.path, tt.q)
		}
	}
	if err := (&Asker{URL: asker.URL, Patience: 200 * time.Millisecond}).Ask(t.Context(), "/sum", sum{1, 2}, nil); err == nil {
		t.Error("answered without a token")
	}
}

// While nobody answers it is asked again, whatever a proxy on the way says, and not for ever.
func TestAskAgain(t *testing.T) {
	a := NewAnswers("right")
	var asked atomic.Int32
	Answer(a, "/late", func(context.Context, string, struct{}) (int32, error) {
		if n := asked.Load(); n < 4 {
			return 0, fmt.Errorf("%d times: %w", n, ErrNotYet)
		}
		return asked.Load(), nil
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch asked.Add(1) {
		case 1:
			http.Error(w, "no endpoints available", http.StatusServiceUnavailable)
		case 2:
			http.Error(w, "the server could not find the requested resource", http.StatusNotFound)
		default:
			a.ServeHTTP(w, r)
		}
	}))
	defer server.Close()
	asker := &Asker{URL: server.URL, Token: "right"}
	var answer int32
	if err := asker.Ask(t.Context(), "/late", struct{}{}, &answer); err != nil || answer != 4 {
		t.Errorf("answer %d, %v", answer, err)
	}
	server.Close()
	asker.Patience = 300 * time.Millisecond
	if err := asker.Ask(t.Context(), "/late", struct{}{}, nil); err == nil || !strings.Contains(err.Error(), "no answer in 300ms: ") ||
		!strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := asker.Ask(ctx, "/late", struct{}{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}

func TestHealth(t *testing.T) {
	a := NewAnswers("right")
	get := func() int {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest(http.MethodGet, HealthPath, nil))
		return w.Code
	}
	if code := get(); code != http.StatusServiceUnavailable {
		t.Errorf("before: %d", code)
	}
	a.Ready()
	if code := get(); code != http.StatusOK {
		t.Errorf("afterwards: %d", code)
	}
}

func TestWorld(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, WorldFile)
	if _, err := World(dir); err == nil {
		t.Error("no error without a file")
	}
	if err := os.WriteFile(file, []byte("http://registry:s3cret@192.0.2.1:99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := World(dir)
	if err != nil || a.URL != "http://192.0.2.1:99" || a.Token != "s3cret" || a.From != "registry" {
		t.Errorf("%+v, %v", a, err)
	}
	if err := os.WriteFile(file, []byte("http:s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := World(dir); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("no address: %v", err)
	}
}
