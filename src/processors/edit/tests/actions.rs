//! What each action does, case by case, and what survives it.
