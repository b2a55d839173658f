package builder

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// QuestionPath is where agents in build pods ask a [Question].
const QuestionPath = "/build-pod"

// Question asks for an [Answer] before a phase. No phase is that before the first, in which the containers are created.
type Question struct {
	// Pod is the name of the pod, which may be cut off as host names are.
	Pod   string `json:"pod"`
	Phase string `json:"phase"`
}

// Answer is what the agent in a real build pod is told before a phase: how the world is, and whether the phase may begin.
type Answer struct {
	// Hang lets the container hang until its pod is deleted.
	Hang bool
	// Code, where not 0, ends the container, with Message as the last line of its log.
	Code    int
	Message string

	Durations    Durations
	Repositories []Repository
}

// MarshalJSON puts the whole of an answer into a text. In JSON the packages of repositories would lack what their descriptions
// in images don't have.
func (a Answer) MarshalJSON() ([]byte, error) {
	type plain Answer
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(plain(a)); err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return json.Marshal(b.Bytes())
}

// UnmarshalJSON is the opposite of MarshalJSON.
func (a *Answer) UnmarshalJSON(text []byte) error {
	type plain Answer
	var b []byte
	err := json.Unmarshal(text, &b)
	if err == nil {
		err = gob.NewDecoder(bytes.NewReader(b)).Decode((*plain)(a))
	}
	if err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

// Answer answers the agent in a pod, as the component would do with the phase of a simulated one.
func (o Options) Answer(pod *corev1.Pod, phase string) Answer {
	o.Durations.complete()
	a := Answer{Durations: o.Durations, Repositories: o.Repositories.List()}
	if o.Before == nil || phase == "" {
		return a
	}
	err := o.Before(pod, phase)
	var e *ExitError
	switch {
	case err == nil:
	case errors.Is(err, ErrHang):
		a.Hang = true
	case errors.As(err, &e):
		a.Code, a.Message = e.Code, e.Message
	default:
		a.Code, a.Message = 1, fmt.Sprintf("Error: %v", err)
	}
	return a
}
