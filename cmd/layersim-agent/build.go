package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/layersim/layersim/sim/builder"
)

// The files by which the containers of a build pod speak to each other.
const (
	doneFolder = "/tmp/done"
	digestFile = doneFolder + "/digestfile"
	failedFile = doneFolder + "/failed"
)

// namespaceFile holds the pod's namespace.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// imageBuild is the container that builds and pushes.
func imageBuild(ctx context.Context) int {
	digest, code := build(ctx)
	file, content := failedFile, ""
	if code == 0 {
		file, content = digestFile, digest
	}
	// Under another name first, as the other container looks for it all the time.
	part := file + ".part"
	if err := os.WriteFile(part, []byte(content), 0o644); err != nil {
		return broken(err)
	}
	if err := os.Rename(part, file); err != nil {
		return broken(err)
	}
	return code
}

// broken tells of something that is not the build's fault.
func broken(err error) int {
	fmt.Printf("Error: layersim-agent: %v\n", err)
	return 1
}

func build(ctx context.Context) (digest string, code int) {
	s, err := newSurroundings()
	if err != nil {
		return "", broken(err)
	}
	a := &builder.Attempt{Env: os.Getenv, Transport: s.registries, File: func(name string) ([]byte, bool) {
		content, err := os.ReadFile(filepath.Clean(name))
		return content, err == nil
	}}
	steps := []struct {
		phase string
		do    func() (time.Duration, int)
	}{
		{"", func() (time.Duration, int) { return a.Durations.Start, 0 }},
		{builder.PhasePull, func() (time.Duration, int) { return a.Pull(ctx) }},
		{builder.PhaseBuild, func() (time.Duration, int) { return a.Make(time.Now()) }},
		{builder.PhasePush, func() (time.Duration, int) { return 0, a.Push(ctx) }},
	}
	for _, step := range steps {
		if step.phase == builder.PhasePush && !sleep(ctx, a.PushTime()) {
			return "", terminated
		}
		answer, err := s.ask(ctx, step.phase)
		if err != nil {
			return "", broken(err)
		}
		if code, stop := obey(ctx, answer); stop {
			return "", code
		}
		a.Durations, a.Repositories = answer.Durations, builder.NewRepositories(answer.Repositories...)
		took, code := step.do()
		fmt.Print(a.Log.String())
		a.Log.Reset()
		switch {
		case !sleep(ctx, took):
			return "", terminated
		case code != 0:
			return "", code
		}
	}
	return a.Digest, 0
}

// obey does what an answer wants done in place of a phase.
func obey(ctx context.Context, a builder.Answer) (code int, stop bool) {
	switch {
	case a.Hang:
		<-ctx.Done()
		return terminated, true
	case a.Code != 0:
		fmt.Println(a.Message)
		return a.Code, true
	}
	return 0, false
}

// handOver is the container that waits for the digest and writes it to a ConfigMap. It fails when the other one does.
func handOver(ctx context.Context, script string) int {
	for {
		if _, err := os.Stat(digestFile); err == nil {
			break
		}
		if _, err := os.Stat(failedFile); err == nil {
			return 1
		}
		if !sleep(ctx, time.Second) {
			return terminated
		}
	}
	s, err := newSurroundings()
	if err != nil {
		return broken(err)
	}
	answer, err := s.ask(ctx, builder.PhaseDigest)
	if err != nil {
		return broken(err)
	}
	if code, stop := obey(ctx, answer); stop {
		return code
	}
	verb, err := writeDigest(ctx, "build-pod/"+s.pod, strings.Contains(script, "oc create configmap"))
	if err != nil {
		fmt.Printf("Error from server: %v\n", err)
		return 1
	}
	fmt.Printf("configmap/%s %s\n", os.Getenv("DIGEST_CONFIGMAP_NAME"), verb)
	return 0
}

// writeDigest creates the ConfigMap, or updates one that is there unless it is to be created.
func writeDigest(ctx context.Context, author string, create bool) (verb string, err error) {
	digest, err := os.ReadFile(digestFile)
	if err != nil {
		return "", err
	}
	namespace, err := os.ReadFile(namespaceFile)
	if err != nil {
		return "", err
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return "", err
	}
	config.Proxy = http.ProxyURL(nil) // it is beside us
	core, err := corev1client.NewForConfig(config)
	if err != nil {
		return "", err
	}
	labels := map[string]string{}
	separator := func(c rune) bool { return c == ' ' || c == ',' || c == '\n' } // releases differ
	for _, pair := range strings.FieldsFunc(os.Getenv("DIGEST_CONFIGMAP_LABELS"), separator) {
		key, value, _ := strings.Cut(pair, "=")
		labels[key] = value
	}
	maps := core.ConfigMaps(string(namespace))
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: os.Getenv("DIGEST_CONFIGMAP_NAME"), Labels: labels},
		Data:       map[string]string{"digest": strings.TrimSpace(string(digest))},
	}
	for {
		_, err := maps.Create(ctx, object, metav1.CreateOptions{FieldManager: author})
		if err == nil || create || !apierrors.IsAlreadyExists(err) {
			return "created", err
		}
		old, err := maps.Get(ctx, object.Name, metav1.GetOptions{})
		if err == nil {
			if old.Labels == nil {
				old.Labels = map[string]string{}
			}
			for key, value := range labels {
				old.Labels[key] = value
			}
			old.Data = object.Data
			_, err = maps.Update(ctx, old, metav1.UpdateOptions{FieldManager: author})
		}
		// It was deleted or changed in between.
		if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return "configured", err
		}
	}
}
