package main

import (
	"context"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/cluster/live/agent"
)

// The agent in a build pod asks at the address of the proxy for what has no TLS.
func TestAsk(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := builder.Answer{Code: 137, Message: "Killed", Repositories: []builder.Repository{{ID: "a", Packages: []builder.Package{{Name: "tree", Size: 7}}}}}
	refused := 1
	answers := agent.NewAnswers("secret")
	agent.Answer(answers, builder.QuestionPath, func(_ context.Context, from string, q builder.Question) (builder.Answer, error) {
		if (q != builder.Question{Pod: host, Phase: builder.PhasePush}) {
			t.Errorf("%s asks %+v", from, q)
		}
		if refused--; refused >= 0 {
			return builder.Answer{}, agent.ErrNotYet
		}
		return want, nil
	})
	server := httptest.NewServer(answers)
	defer server.Close()
	t.Setenv("HTTP_PROXY", strings.Replace(server.URL, "http://", "http://build-pod:secret@", 1))
	t.Setenv("HTTPS_PROXY", "http://machine-os-builder:-@192.0.2.1:3128")
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
	for _, missing := range []string{"HTTPS_PROXY", "HTTP_PROXY"} {
		t.Setenv("HTTP_PROXY", "http://a:b@192.0.2.1:1")
		t.Setenv("HTTPS_PROXY", "http://a:b@192.0.2.1:1")
		t.Setenv(missing, "")
		t.Setenv(strings.ToLower(missing), "")
		if _, err := newSurroundings(); err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("without a proxy: %v, want %s", err, missing)
		}
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
