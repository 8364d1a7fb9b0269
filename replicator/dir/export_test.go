package dir

// SetStep has a function called before each step that changes something; its error
// is the error of the step.
func (s *Store) SetStep(step func(string) error) { s.step = step }
