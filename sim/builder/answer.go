package builder

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// AnswerPath is where agents ask for an Answer: POST, with the pod's name and the phase as parameters of the query. No phase
// is that before the first, in which the containers are created. The answer is encoded by encoding/gob.
const AnswerPath = "/layersim/build-pod"

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
