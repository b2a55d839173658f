package main

import (
	"encoding/gob"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layersim/layersim/sim/builder"
)

// The agent asks at the address of the cluster's proxy, with the proxy's password, under its pod's name.
func TestAsk(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := builder.Answer{Code: 137, Message: "Killed", Repositories: []builder.Repository{{ID: "a", Unreachable: true}}}
	refused := 1
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, token, _ := r.BasicAuth()
		query := url.Values{"pod": {host}, "phase": {builder.PhasePush}}.Encode()
		if r.Method != http.MethodPost || r.URL.Path != builder.AnswerPath || r.URL.RawQuery != query ||
			user != "build-pod/"+host || token != "secret" {
			t.Errorf("%s %s by %s:%s", r.Method, r.URL, user, token)
		}
		if refused--; refused >= 0 {
			http.Error(w, "not yet", http.StatusNotFound)
			return
		}
		if err := gob.NewEncoder(w).Encode(want); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	t.Setenv("HTTPS_PROXY", strings.Replace(server.URL, "http://", "http://machine-os-builder:secret@", 1))
	s, err := newSurroundings()
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.ask(t.Context(), builder.PhasePush)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if code, stop := obey(t.Context(), got); code != 137 || !stop {
		t.Errorf("obey: %d, %v; want exit code 137", code, stop)
	}
}

func TestNoProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "")
	t.Setenv("https_proxy", "")
	if _, err := newSurroundings(); err == nil || !strings.Contains(err.Error(), "HTTPS_PROXY") {
		t.Errorf("without a proxy: %v", err)
	}
}

func TestNoShell(t *testing.T) {
	for _, args := range [][]string{
		{"/bin/bash"}, {"/bin/bash", "-c", "echo"}, {"/agent", "-c", "buildah bud"}, {"/bin/bash", "-x", "buildah bud"},
	} {
		if code := run(t.Context(), args); code != 127 {
			t.Errorf("%q: exit code %d, want 127", args, code)
		}
	}
}
