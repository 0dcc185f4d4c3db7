"""From a script that is ill to a verified cure: watch it, screen what may help, try it, hand it over."""
