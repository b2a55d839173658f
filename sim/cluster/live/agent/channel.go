package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// Given is the folder in which an agent finds what it is given.
	Given = "/etc/layersim"
	// WorldFile has the address of layersim, with the token.
	WorldFile = "world"
	// AdminPort is where an agent answers layersim, and, at [HealthPath], the kubelet.
	AdminPort = 8080
	// HealthPath answers 200 once the agent is ready. It needs no token.
	HealthPath = "/healthz"
	// Patience is how long the other end may not answer, unless it is said otherwise.
	Patience = 30 * time.Second
)

// The headers of a question. Authorization is none of them, as an API server keeps it for itself.
const (
	tokenHeader = "Layersim-Token"
	fromHeader  = "Layersim-From"
	// answeredHeader tells an answer from what a proxy between the ends says.
	answeredHeader = "Layersim-Answer"
)

// ErrNotYet is in the error of an answer that can't be given yet: the question is asked again.
var ErrNotYet = errors.New("not yet")

// Asker asks the other end.
type Asker struct {
	// URL is where the other end answers; paths are appended.
	URL string
	// Token of the run.
	Token string
	// From is who asks.
	From string
	// Client is the way, by default a direct one.
	Client *http.Client
	// Patience is how long it may take until there is an answer, by default [Patience].
	Patience time.Duration
}

// World returns the way to layersim of an agent that was given a folder.
func World(folder string) (*Asker, error) {
	content, err := os.ReadFile(filepath.Join(folder, WorldFile))
	if err != nil {
		return nil, fmt.Errorf("find layersim: %w", err)
	}
	u, err := url.Parse(strings.TrimSpace(string(content)))
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("find layersim: %s has no address", filepath.Join(folder, WorldFile)) // and may have a token
	}
	return At(u), nil
}

// At returns the way to layersim at an address with name and token.
func At(u *url.URL) *Asker {
	token, _ := u.User.Password()
	return &Asker{URL: u.Scheme + "://" + u.Host, Token: token, From: u.User.Username()}
}

// dial connects to what is in the cluster, within five seconds: kube-proxy drops what is sent to the address of a Service that
// is gone, which a name may still have for a while, and the kernel gives up after two minutes only.
var dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext

// direct is a way past all proxies.
var direct = &http.Client{Transport: &http.Transport{DialContext: dial, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 16}}

// permanent is an answer that is none, and won't be.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Ask asks a question and reads the answer into a pointer, or nowhere if that is nil. It asks again while the other end doesn't
// answer.
func (a *Asker) Ask(ctx context.Context, path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	limit := cmp.Or(a.Patience, Patience)
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	pause := 50 * time.Millisecond
	for {
		err := a.once(waiting, path, body, answer)
		if err == nil {
			return nil
		}
		if p := (permanent{}); errors.As(err, &p) {
			return fmt.Errorf("ask %s: %w", path, p.error)
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		case <-waiting.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("ask %s: %w", path, ctx.Err())
			}
			return fmt.Errorf("ask %s: no answer in %s: %w", path, limit, err)
		}
	}
}

func (a *Asker) once(ctx context.Context, path string, body []byte, answer any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(a.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return permanent{err}
	}
	request.Header.Set(tokenHeader, a.Token)
	request.Header.Set(fromHeader, a.From)
	request.Header.Set("Content-Type", "application/json")
	response, err := cmp.Or(a.Client, direct).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode == http.StatusOK && response.Header.Get(answeredHeader) != "":
	case response.Header.Get(answeredHeader) == "", response.StatusCode == http.StatusServiceUnavailable,
		response.StatusCode == http.StatusUnauthorized: // it is another run's, and being replaced
		return fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(content))
	default:
		return permanent{errors.New(string(bytes.TrimSpace(content)))}
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(content, answer); err != nil {
		return permanent{fmt.Errorf("read the answer: %w", err)}
	}
	return nil
}

// Answers is the end of a channel that answers. Its methods may be called at the same time.
type Answers struct {
	token string

	mu    sync.Mutex // guards what follows
	paths map[string]func(ctx context.Context, from string, question []byte) (any, error)
	ready bool
}

// NewAnswers returns an end that answers nothing yet, to those who know the token.
func NewAnswers(token string) *Answers {
	return &Answers{token: token, paths: map[string]func(context.Context, string, []byte) (any, error){}}
}

// Answer lets questions at a path be answered. From is who asks, as the asker says. An error that is [ErrNotYet] lets the
// asker ask again.
func Answer[Q, A any](a *Answers, path string, answer func(ctx context.Context, from string, question Q) (A, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paths[path] = func(ctx context.Context, from string, content []byte) (any, error) {
		var question Q
		if err := json.Unmarshal(content, &question); err != nil {
			return nil, fmt.Errorf("read the question: %w", err)
		}
		return answer(ctx, from, question)
	}
}

// Ready lets [HealthPath] say that all is well.
func (a *Answers) Ready() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready = true
}

// ServeHTTP answers a question.
func (a *Answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	answer, ready := a.paths[r.URL.Path], a.ready
	a.mu.Unlock()
	if r.URL.Path == HealthPath {
		if !ready {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
		return
	}
	w.Header().Set(answeredHeader, "1")
	switch {
	case a.token == "" || subtle.ConstantTimeCompare([]byte(r.Header.Get(tokenHeader)), []byte(a.token)) != 1:
		http.Error(w, "this is for the agents of a run; the token is another's", http.StatusUnauthorized)
		return
	case answer == nil || r.Method != http.MethodPost:
		http.Error(w, "nobody answers at "+r.URL.Path, http.StatusNotFound)
		return
	}
	question, err := io.ReadAll(r.Body)
	if err != nil {
		return // the asker is gone
	}
	a.reply(w, func() (any, error) { return answer(r.Context(), r.Header.Get(fromHeader), question) })
}

func (a *Answers) reply(w http.ResponseWriter, answer func() (any, error)) {
	value, err := answer()
	var content []byte
	if err == nil {
		content, err = json.Marshal(value)
	}
	switch {
	case errors.Is(err, ErrNotYet):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(content) // an asker that is gone can't be told
	}
}

// Serve answers on a listener until the context ends.
func (a *Answers) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: a, ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // nothing can be done about a listener that doesn't close
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
