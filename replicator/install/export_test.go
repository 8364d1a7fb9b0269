package install

// SetStep has a function called before each step that changes something; its error
// is the error of the step.
func (p *Place) SetStep(step func(string) error) { p.step = step }
